package cache

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dcfs/cache/piece"
)

// writeAll brings every piece and has it written, so that only the disk and
// memory have it.
func (r *rig) writeAll() {
	r.t.Helper()
	for i := range piece.Index(r.Layout().Count()) {
		r.mustDeliver(i)
	}
	for r.writeNext(r.t.Context()) {
	}
}

// A piece that somebody changes on the disk after it was verified and written
// is found by its hash before a byte of it is given out, and is fetched again.
func TestDamageUnderneath(t *testing.T) {
	r := newRig(t, 20, 4, noMemory)
	r.writeAll()
	r.disk.data[9] ^= 1 // piece 2
	p := make([]byte, 1)
	if err := r.ReadChunk(2, p, 0); !errors.Is(err, ErrAbsent) || !errors.Is(err, ErrDisk) || p[0] != 0 {
		t.Errorf("another byte of the damaged piece: %v, %v", p, err)
	}
	if r.Have(2) || isDone(r.Complete()) || !slices.Equal(r.losses(), []piece.Index{2}) {
		t.Errorf("have %v, lost %v", r.Have(2), r.losses())
	}
	r.mustDeliver(2)
	for r.writeNext(t.Context()) {
	}
	r.mustRead()
	if !bytes.Equal(r.disk.data, r.src) {
		t.Error("the disk was not mended")
	}
}

// Recheck looks at the disk, whatever memory holds.
func TestRecheck(t *testing.T) {
	r := newRig(t, 40, 4)
	r.writeAll()
	r.disk.data[9] ^= 1  // piece 2
	r.disk.data[30] ^= 1 // piece 7
	r.mustRead()         // from memory
	if len(r.losses()) != 0 {
		t.Fatal("memory was not asked")
	}
	some := piece.NewSet(10)
	for i := range piece.Index(5) {
		some.Add(i)
	}
	r.Recheck(t.Context(), some)
	if got := r.losses(); !slices.Equal(got, []piece.Index{2}) || !r.Have(7) {
		t.Errorf("lost %v", got)
	}
	r.mustDeliver(2) // pinned, and not on the disk yet
	r.Recheck(t.Context(), some)
	if got := r.losses(); len(got) != 1 || !r.Have(2) {
		t.Errorf("a piece that the disk has not got yet was called lost: %v", got)
	}
}

// The requests of one piece, one after the other and by several readers, read
// it from the disk once, however often ristretto refuses it.
func TestOneLoadForManyReads(t *testing.T) {
	const length = 64 << 10
	r := newRig(t, 64*length, length, func(c *Config, r *rig) { c.Memory = newMemory(r.t, 8*length) })
	r.writeAll()
	r.disk.reads.Store(0)
	p := make([]byte, 1<<10)
	for i := range piece.Index(64) {
		for off := int64(0); off < length; off += int64(len(p)) {
			if err := r.ReadChunk(i, p, off); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := r.disk.reads.Load(); n > 64 {
		t.Errorf("%d reads of the disk for 64 pieces", n)
	}
}

// stuckFetcher is a swarm whose lock somebody holds for ever.
type stuckFetcher struct{ held chan struct{} }

func (f stuckFetcher) Want(piece.Range, piece.Urgency) { <-f.held }
func (f stuckFetcher) Relax(piece.Range)               { <-f.held }
func (f stuckFetcher) Explain(piece.Index) string      { <-f.held; return "" }

// No lock of the torrent client is on the way to a verified piece, be it
// pinned, in memory or on the disk: reads are served while that lock is held
// and while other readers hang on it.
func TestVerifiedReadsNeedNoSwarm(t *testing.T) {
	for name, option := range map[string]func(*Config, *rig){"memory": func(*Config, *rig) {}, "disk": noMemory} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 400, 4, option)
				for i := range piece.Index(50) {
					r.mustDeliver(i)
				}
				for r.writeNext(t.Context()) {
				}
				r.mustDeliver(50) // stays pinned
				f := stuckFetcher{make(chan struct{})}
				r.Attach(f)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				var stuck sync.WaitGroup
				stuck.Go(func() { _, _ = r.ReadAt(ctx, make([]byte, 4), 399) })
				synctest.Wait()
				got := make([]byte, 51*4)
				if _, err := r.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, r.src[:len(got)]) {
					t.Errorf("a verified read: %v", err)
				}
				close(f.held)
				stuck.Wait()
			})
		})
	}
}

// A restart hashes what a former process left once and nothing else: a piece
// that a reader needs ahead of its turn is not hashed again, and one that is
// missing is not looked for.
func TestScrubHashesOnce(t *testing.T) {
	r := newRig(t, 400, 4, onDisk, func(c *Config, _ *rig) { c.Claimed.Remove(99) })
	p := make([]byte, 4)
	for i := range piece.Index(10) {
		if err := r.ReadChunk(90-i, p, 0); err != nil || !bytes.Equal(p, r.bytes(r.Layout(), 90-i)) {
			t.Fatalf("piece %d before its turn: %v", 90-i, err)
		}
	}
	r.Scrub(t.Context())
	r.Scrub(t.Context())
	if n, st := r.disk.reads.Load(), r.Stats(); n != 99 || st.Pieces != 99 || st.Claimed != 0 {
		t.Errorf("%d reads of the disk for 99 claimed pieces, %+v", n, st)
	}
}
