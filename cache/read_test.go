package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"dcfs/cache/piece"
)

func TestReadAt(t *testing.T) {
	r := newRig(t, 10, 4)
	r.mustDeliver(0, 1, 2)
	for _, c := range []struct {
		off int64
		n   int
		got int
		err error
	}{
		{0, 10, 10, nil}, {0, 0, 0, nil}, {3, 4, 4, nil}, {0, 11, 10, io.EOF}, {9, 1, 1, nil},
		{9, 2, 1, io.EOF}, {10, 1, 0, io.EOF}, {10, 0, 0, io.EOF}, {99, 5, 0, io.EOF},
	} {
		p := make([]byte, c.n)
		n, err := r.ReadAt(context.Background(), p, c.off)
		if n != c.got || !errors.Is(err, c.err) || (c.err == nil) != (err == nil) {
			t.Errorf("ReadAt(%d bytes, %d) = %d, %v; want %d, %v", c.n, c.off, n, err, c.got, c.err)
		}
		if !bytes.Equal(p[:n], r.src[min(c.off, 10):min(c.off+int64(n), 10)]) {
			t.Errorf("ReadAt(%d bytes, %d): wrong bytes", c.n, c.off)
		}
	}
	if _, err := r.ReadAt(context.Background(), make([]byte, 1), -1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("negative offset: %v", err)
	}
}

// wanted fails unless the first pieces are wanted just so.
func (r *rig) wanted(when string, want ...piece.Urgency) {
	r.t.Helper()
	for i, u := range want {
		if got := r.fetch.urgency(piece.Index(i)); got != u {
			r.t.Errorf("%s: piece %d is wanted for %v, want %v", when, i, got, u)
		}
	}
}

// A read that stands alone asks for what it needs, and for nothing else: others
// would wait for that.
func TestReadAsksForAllItNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 40, 4, func(c *Config, _ *rig) { c.Ahead = 12 })
		r.mustDeliver(1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { _, err := r.ReadAt(ctx, make([]byte, 20), 4); done <- err }()
		synctest.Wait()
		r.wanted("alone", piece.None, piece.None, piece.Demand, piece.Demand, piece.Demand, piece.Demand, piece.None, piece.None)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		r.wanted("given up", make([]piece.Urgency, 10)...)
	})
}

// Reads that go on from each other bring on what is behind them, whether they
// miss something or not: so a scan of small files finds them there.
func TestReadsInOrderAskAhead(t *testing.T) {
	r := newRig(t, 40, 4, func(c *Config, _ *rig) { c.Ahead = 12 })
	r.mustDeliver(0, 1)
	read := func(off int64, n int) {
		t.Helper()
		if _, err := r.ReadAt(t.Context(), make([]byte, n), off); err != nil {
			t.Fatal(err)
		}
	}
	read(0, 2)
	r.wanted("the first", make([]piece.Urgency, 10)...)
	read(2, 2)
	r.wanted("the piece behind is here", make([]piece.Urgency, 10)...)
	read(4, 1)
	r.wanted("a young stream", piece.None, piece.None, piece.Neighbour, piece.None)
	read(5, 3)
	r.wanted("an old stream", piece.None, piece.None, piece.Window, piece.Window, piece.Window, piece.None)
	r.mustDeliver(2, 3, 4, 5, 6, 7, 8, 9)
	read(8, 32) // to the end
}

func TestReadersShareOneWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 8, 4)
		r.Attach(nil) // the fetcher comes late
		const readers = 20
		got := make(chan []byte, readers)
		for range readers {
			go func() {
				p := make([]byte, 4)
				if _, err := r.ReadAt(t.Context(), p, 4); err != nil {
					t.Error(err)
				}
				got <- p
			}()
		}
		synctest.Wait()
		if w := r.Waits(); len(w) != 1 || w[0].Piece != 1 || w[0].Readers != readers {
			t.Fatalf("waits %+v", w)
		}
		r.Attach(r.fetch)
		if r.fetch.urgency(1) != piece.Demand {
			t.Fatal("the late fetcher was not asked")
		}
		r.mustDeliver(1)
		for range readers {
			if !bytes.Equal(<-got, r.src[4:8]) {
				t.Error("wrong bytes")
			}
		}
		if len(r.Waits()) != 0 {
			t.Errorf("waits %+v", r.Waits())
		}
	})
}

func TestCancelledReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 8, 4)
		cause := errors.New("too long")
		first, cancelFirst := context.WithCancelCause(t.Context())
		second, cancelSecond := context.WithCancelCause(t.Context())
		errs := make(chan error)
		for _, ctx := range []context.Context{first, second} {
			go func() { _, err := r.ReadAt(ctx, make([]byte, 4), 4); errs <- err }()
		}
		synctest.Wait()
		cancelFirst(cause)
		if err := <-errs; !errors.Is(err, cause) || !bytes.Contains([]byte(err.Error()), []byte("piece 1")) {
			t.Fatalf("the error is %v", err)
		}
		if r.fetch.urgency(1) != piece.Demand {
			t.Fatal("the other reader's demand was taken back")
		}
		cancelSecond(cause)
		<-errs
		if r.fetch.urgency(1) != piece.None || len(r.Waits()) != 0 {
			t.Fatal("nobody waits any more, and the piece is still in demand")
		}
	})
}

// A reader that begins to wait just when the last one gives up must not lose
// its demand to the other's Relax.
func TestRelaxDoesNotSwallowANewDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 8, 4)
		late := make(chan error, 1)
		r.fetch.onRelax = func() {
			r.fetch.onRelax = nil
			go func() { late <- r.Wait(t.Context(), 1) }()
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Wait(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if r.fetch.urgency(1) != piece.Demand {
			t.Error("the new reader waits for a piece that nobody asks for")
		}
		r.mustDeliver(1)
		if err := <-late; err != nil {
			t.Error(err)
		}
	})
}
