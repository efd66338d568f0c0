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

func TestReadAsksForAllItNeedsAndALittleAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 40, 4, func(c *Config, _ *rig) { c.Ahead = 3 })
		r.mustDeliver(1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { _, err := r.ReadAt(ctx, make([]byte, 20), 4); done <- err }()
		synctest.Wait()
		for i := range piece.Index(10) {
			want := piece.None
			switch {
			case i >= 2 && i <= 5:
				want = piece.Demand
			case i >= 6 && i <= 8:
				want = piece.Window
			}
			if got := r.fetch.urgency(i); got != want {
				t.Errorf("piece %d is wanted for %v, want %v", i, got, want)
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		for i := range piece.Index(6) {
			if got := r.fetch.urgency(i); got != piece.None {
				t.Errorf("after the read gave up, piece %d is still wanted for %v", i, got)
			}
		}
	})
}

// A read that misses nothing brings its neighbours on, so that a scan of small
// files finds them there.
func TestReadAsksForNeighbours(t *testing.T) {
	r := newRig(t, 40, 4, func(c *Config, _ *rig) { c.Ahead = 3 })
	r.mustDeliver(1, 2)
	if _, err := r.ReadAt(t.Context(), make([]byte, 4), 4); err != nil {
		t.Fatal(err)
	}
	for i := range piece.Index(10) {
		want := piece.None
		if i == 3 || i == 4 {
			want = piece.Neighbour
		}
		if got := r.fetch.urgency(i); got != want {
			t.Errorf("piece %d is wanted for %v, want %v", i, got, want)
		}
	}
	r.mustDeliver(7, 8, 9)
	if _, err := r.ReadAt(t.Context(), make([]byte, 4), 28); err != nil { // to the end
		t.Fatal(err)
	}
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
