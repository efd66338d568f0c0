package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dcfs/cache/piece"
)

func TestClaimsAreHashedBeforeUse(t *testing.T) {
	r := newRig(t, 20, 4, onDisk)
	r.disk.data[9] ^= 1 // piece 2
	if st := r.Stats(); !r.Have(2) || st.Pieces != 0 || st.Claimed != 5 || st.Unproven != 20 || st.Resumed != 0 {
		t.Fatalf("at the start: %+v", r.Stats())
	}
	p := make([]byte, 3)
	if err := r.ReadChunk(1, p, 1); err != nil || !bytes.Equal(p, r.src[5:8]) {
		t.Fatalf("a good claim: %v", err)
	}
	if err := r.ReadChunk(2, p, 0); !errors.Is(err, ErrAbsent) || r.Have(2) {
		t.Fatalf("a damaged claim: %v", err)
	}
	r.Scrub(t.Context())
	if got := r.losses(); !slices.Equal(got, []piece.Index{2}) {
		t.Fatalf("OnLost was told of %v", got)
	}
	if st := r.Stats(); st.Claimed != 0 || st.Pieces != 4 || st.Unproven != 0 || st.Resumed != 16 || isDone(r.Complete()) {
		t.Fatalf("after scrubbing: %+v", st)
	}
	r.start()
	r.mustDeliver(2)
	if err := r.Flush(t.Context()); err != nil || !isDone(r.Complete()) {
		t.Fatal(err)
	}
	r.mustRead()
	if !bytes.Equal(r.disk.durable, r.src) || r.disk.have[0] != 0xf8 {
		t.Errorf("the damaged piece was not mended on disk; record %x", r.disk.have)
	}
}

// A reader of a damaged claim waits for the swarm like any other.
func TestDamagedClaimIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 8, 4, onDisk)
		r.disk.data[0] ^= 1
		done := make(chan []byte)
		go func() {
			p := make([]byte, 8)
			if _, err := r.ReadAt(t.Context(), p, 0); err != nil {
				t.Error(err)
			}
			done <- p
		}()
		synctest.Wait()
		if r.fetch.urgency(0) != piece.Demand || len(r.losses()) != 1 {
			t.Fatalf("wanted for %v, lost %v", r.fetch.urgency(0), r.losses())
		}
		r.mustDeliver(0)
		if !bytes.Equal(<-done, r.src) {
			t.Error("wrong bytes")
		}
	})
}

func TestAClaimIsHashedOnceForAllReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 8, 4, onDisk, noMemory)
		r.disk.hold = make(chan struct{})
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				p := make([]byte, 2)
				if err := r.ReadChunk(1, p, 1); err != nil || !bytes.Equal(p, r.src[5:7]) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(r.disk.hold)
		readers.Wait()
		if n, st := r.disk.reads.Load(), r.Stats(); n != 1 || st.Pieces != 1 || st.Claimed != 1 {
			t.Errorf("%d reads, %+v", n, st)
		}
	})
}

func TestNothingIsLostWithoutMemory(t *testing.T) {
	r := newRig(t, 100, 4, noMemory)
	r.start()
	for i := range piece.Index(25) {
		r.mustDeliver(i)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.mustRead()
	if hits, misses := r.mem.Counts(); hits != 0 || misses == 0 || r.Stats().Dirty != 0 {
		t.Errorf("%d hits, %d misses, %+v", hits, misses, r.Stats())
	}
}

func TestPinsLastUntilWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 8, 4, noMemory)
		r.disk.hold = make(chan struct{})
		r.start()
		r.mustDeliver(0, 1)
		synctest.Wait()
		if r.Stats().Dirty != 8 {
			t.Fatalf("%+v", r.Stats())
		}
		r.mustRead()
		if sum, err := r.Verify(1); err != nil || sum != r.cfg.Hash(1) {
			t.Fatalf("verifying a pinned piece again: %v", err)
		}
		r.Store.lost(1, io.ErrUnexpectedEOF) // a reader's stale news of the disk
		if !r.Have(1) || len(r.losses()) != 0 || r.disk.reads.Load() != 0 {
			t.Fatal("a pinned piece was taken from its readers")
		}
		close(r.disk.hold)
		synctest.Wait()
		if r.Stats().Dirty != 0 || !bytes.Equal(r.disk.data, r.src) {
			t.Fatalf("%+v", r.Stats())
		}
	})
}

func TestDirtyLimitHoldsTheSwarmBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 80, 4, dirtyLimit(8))
		r.disk.hold = make(chan struct{})
		r.start()
		r.mustDeliver(0, 1)
		var held sync.WaitGroup
		for i := piece.Index(2); i < 5; i++ {
			held.Go(func() { r.mustDeliver(i) })
		}
		synctest.Wait()
		if got := r.Stats().Dirty; got != 20 {
			t.Fatalf("%d bytes are dirty, want what was there and one piece for each caller", got)
		}
		p := make([]byte, 4)
		if err := r.ReadChunk(4, p, 0); err != nil || !bytes.Equal(p, r.src[16:20]) {
			t.Fatalf("a piece whose Verify waits cannot be read: %v", err)
		}
		close(r.disk.hold)
		held.Wait()
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// While the disk is full, the background waits and readers do not, however much
// they read; when it has room again, all is as it should be.
func TestFullDiskThatRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 400, 4, noMemory, dirtyLimit(16))
		r.disk.writeErr = syscall.ENOSPC
		r.start()
		var background sync.WaitGroup
		for i := piece.Index(0); i < 7; i++ { // more than the limit: some wait
			background.Go(func() { _ = r.deliver(i) })
		}
		synctest.Wait()
		if err, since := r.DiskError(); !errors.Is(err, ErrDisk) || !errors.Is(err, syscall.ENOSPC) || since.IsZero() {
			t.Fatalf("DiskError says %v since %v", err, since)
		}
		if err := r.Flush(t.Context()); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("Flush says %v", err)
		}
		for i := piece.Index(50); i < 90; i++ { // ten times the limit
			got := make(chan []byte)
			go func() {
				p := make([]byte, 4)
				if _, err := r.ReadAt(t.Context(), p, r.Layout().Offset(i)); err != nil {
					t.Error(err)
				}
				got <- p
			}()
			synctest.Wait()
			go func() { _ = r.deliver(i) }()
			if !bytes.Equal(<-got, r.bytes(r.Layout(), i)) {
				t.Fatalf("piece %d: wrong bytes", i)
			}
			if n := r.Stats().Dirty; n > 16+16+4*8 {
				t.Fatalf("%d bytes are pinned", n)
			}
		}
		if len(r.losses()) == 0 {
			t.Fatal("nothing was given up, so this test shows nothing")
		}
		r.disk.set(func(d *fakeDisk) { d.writeErr = nil })
		time.Sleep(2 * diskRetry) // the bubble's clock
		background.Wait()
		if err, _ := r.DiskError(); err != nil {
			t.Fatalf("the disk is well, and DiskError says %v", err)
		}
		for i := range piece.Index(100) {
			if !r.Have(i) {
				r.mustDeliver(i)
			}
		}
		if err := r.Flush(t.Context()); err != nil || !isDone(r.Complete()) {
			t.Fatalf("%v, %+v", err, r.Stats())
		}
		r.mustRead()
		if !bytes.Equal(r.disk.durable, r.src) {
			t.Error("the disk differs")
		}
	})
}

// Verify goes on for a reader's sake also when the disk fails after it began to
// wait.
func TestDiskFailsWhileVerifyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 80, 4, noMemory, dirtyLimit(4))
		r.disk.hold = make(chan struct{})
		r.start()
		r.mustDeliver(0)
		go func() { _ = r.Wait(t.Context(), 9) }()
		var waiting sync.WaitGroup
		for i := piece.Index(1); i < 4; i++ {
			waiting.Go(func() { _ = r.deliver(i) })
		}
		synctest.Wait()
		r.disk.set(func(d *fakeDisk) { d.writeErr = syscall.EIO })
		close(r.disk.hold)
		waiting.Wait()
		if n := r.Stats().Dirty; n > 8 {
			t.Errorf("%d bytes are pinned", n)
		}
		r.Close()
		r.mustDeliver(9) // for the reader
	})
}

// A piece that is given up while its own Verify still waits is not called good:
// the swarm would never fetch it again.
func TestVerifyOfAPieceGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 80, 4, noMemory, dirtyLimit(4))
		r.disk.writeErr = syscall.ENOSPC
		r.start()
		r.mustDeliver(0)
		synctest.Wait()
		waiting := make(chan error, 1)
		go func() { waiting <- r.deliver(1) }()
		synctest.Wait()
		go func() { _ = r.deliver(2) }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = r.Wait(ctx, 9) }()
		if err := <-waiting; r.Have(1) == (err != nil) {
			t.Errorf("have %v, error %v", r.Have(1), err)
		}
		synctest.Wait()
		for _, i := range r.losses() {
			if r.Have(i) {
				t.Errorf("piece %d was called lost, and is here", i)
			}
		}
		if len(r.losses()) == 0 {
			t.Error("nothing was given up, so this test shows nothing")
		}
		r.Close()
	})
}

// A swarm that is left waits for what it verifies, so that must not wait for a
// disk that refuses.
func TestLeavingWaitsForNoDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 80, 4, noMemory, dirtyLimit(4))
		r.disk.writeErr = syscall.ENOSPC
		r.start()
		var waiting sync.WaitGroup
		for i := range piece.Index(4) {
			waiting.Go(func() { _ = r.deliver(i) })
		}
		synctest.Wait()
		if n := r.Stats().Dirty; n <= 4 {
			t.Fatalf("%d bytes are pinned, so nobody waits", n)
		}
		r.Attach(nil)
		waiting.Wait()
	})
}

// A reader that had to wait has its piece even when RAM dropped it and the disk
// cannot be read by the time that it looks.
func TestWaitersNeedNoDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 8, 4, noMemory)
		r.disk.readErr = syscall.EIO
		go func() {
			p := make([]byte, 2)
			if _, err := r.ReadAt(t.Context(), p, 5); err != nil || !bytes.Equal(p, r.src[5:7]) {
				t.Error(err)
			}
		}()
		synctest.Wait()
		r.mu.Lock()
		r.admit(1, r.bytes(r.Layout(), 1)) // and it was written at once
		r.written.Add(1)
		r.mu.Unlock()
		synctest.Wait()
		if len(r.Waits()) != 0 || len(r.losses()) != 0 {
			t.Errorf("waits %v, lost %v", r.Waits(), r.losses())
		}
	})
}

// Readers make progress even over a disk that takes writes and gives no reads.
func TestUnreadableDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 40, 4, noMemory)
		r.disk.readErr = syscall.EIO
		r.start()
		for i := range piece.Index(10) {
			go func() {
				p := make([]byte, 4)
				if _, err := r.ReadAt(t.Context(), p, 4*int64(i)); err != nil || !bytes.Equal(p, r.bytes(r.Layout(), i)) {
					t.Errorf("piece %d: %v", i, err)
				}
			}()
			synctest.Wait()
			r.mustDeliver(i)
			synctest.Wait()
			if len(r.Waits()) != 0 {
				t.Fatalf("the reader of piece %d still waits", i)
			}
		}
	})
}
