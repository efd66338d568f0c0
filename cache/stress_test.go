package cache

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"dcfs/cache/piece"
)

// Writers bring pieces, right and wrong, in random order; readers read anywhere
// meanwhile; RAM forgets at random; the disk fails at times. Every byte that is
// read is the source's, and in the end the disk holds them all.
func TestStress(t *testing.T) {
	const length, count = 512, 200
	r := newRig(t, length*count-100, length, dirtyLimit(8*length), func(c *Config, r *rig) {
		c.Memory = newMemory(r.t, 20*length)
	})
	r.start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stop := make(chan struct{})
	var chaos, readers sync.WaitGroup
	chaos.Go(func() { r.forgetAtRandom(stop) })
	for w := range 4 {
		chaos.Go(func() {
			for rng := rand.New(rand.NewPCG(1, uint64(w))); !isDone(stop); {
				r.deliverAll(rng, w, 4)
			}
		})
		readers.Go(func() { r.readAtRandom(ctx, rand.New(rand.NewPCG(2, uint64(w)))) })
	}
	readers.Wait()
	close(stop)
	chaos.Wait()
	r.disk.set(func(d *fakeDisk) { d.writeErr, d.readErr = nil, nil })
	if ctx.Err() != nil {
		t.Fatalf("not done in a minute: %+v, waits %+v", r.Stats(), r.Waits())
	}
	for rng := rand.New(rand.NewPCG(3, 3)); !isDone(r.Complete()); {
		r.deliverAll(rng, 0, 1)
	}
	for err := error(syscall.EIO); errors.Is(err, ErrDisk) || errors.Is(err, syscall.EIO); {
		if err = r.Flush(ctx); err != nil && !errors.Is(err, ErrDisk) {
			t.Fatal(err)
		}
	}
	r.mustRead()
	if !bytes.Equal(r.disk.durable, r.src) || r.Stats().Dirty != 0 {
		t.Errorf("the disk differs, or something is left: %+v", r.Stats())
	}
}

func (r *rig) forgetAtRandom(stop <-chan struct{}) {
	rng := rand.New(rand.NewPCG(4, 4))
	faults, losses := 0, 0 // bounded, or the swarm would never catch up
	for !isDone(stop) {
		r.mem.drop(r.memKey(piece.Index(rng.IntN(r.Layout().Count()))))
		if rng.IntN(20_000) == 0 && faults < 2 { // a refused write costs a second
			faults++
			r.disk.set(func(d *fakeDisk) { d.writeErr = syscall.ENOSPC })
			time.Sleep(time.Millisecond)
			r.disk.set(func(d *fakeDisk) { d.writeErr = nil })
		}
		if rng.IntN(5000) == 0 && losses < 50 {
			losses++
			r.disk.set(func(d *fakeDisk) { d.readErr = syscall.EIO })
			time.Sleep(10 * time.Microsecond)
			r.disk.set(func(d *fakeDisk) { d.readErr = nil })
		}
	}
}

// deliverAll brings once, in random order, every piece that is missing. Of the
// other writers' pieces it brings right chunks only, and leaves the verifying
// to them.
func (r *rig) deliverAll(rng *rand.Rand, writer, writers int) {
	for _, i := range rng.Perm(r.Layout().Count()) {
		if i := piece.Index(i); !r.Have(i) {
			r.deliverSome(i, rng, int(i)%writers == writer)
		}
	}
}

func (r *rig) deliverSome(i piece.Index, rng *rand.Rand, verify bool) {
	b := bytes.Clone(r.bytes(r.Layout(), i))
	half := rng.IntN(len(b))
	if !verify {
		if err := r.WriteChunk(i, b[half:], int64(half)); err != nil {
			r.t.Error(err)
		}
		return
	}
	if rng.IntN(4) == 0 {
		b[rng.IntN(len(b))] ^= 1
	}
	if err := errors.Join(r.WriteChunk(i, b[half:], int64(half)), r.WriteChunk(i, b[:half], 0)); err != nil {
		r.t.Error(err)
	}
	sum, err := r.Verify(i)
	if err != nil && !errors.Is(err, ErrAbsent) {
		r.t.Error(err)
	}
	if err == nil && sum != r.cfg.Hash(i) {
		r.Drop(i)
	}
}

func (r *rig) readAtRandom(ctx context.Context, rng *rand.Rand) {
	p := make([]byte, 3000)
	for range 500 {
		off := rng.Int64N(int64(len(r.src)))
		want := r.src[off:min(off+rng.Int64N(3000)+1, int64(len(r.src)))]
		one, cancel := ctx, context.CancelFunc(func() {})
		if rng.IntN(4) == 0 {
			one, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(1000))*time.Microsecond)
		}
		n, err := r.ReadAt(one, p[:len(want)], off)
		if !bytes.Equal(p[:n], want[:n]) || err == nil && n != len(want) {
			r.t.Errorf("%d bytes at %d: wrong", len(want), off)
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			r.t.Error(err)
		}
		cancel()
	}
}

func BenchmarkReadHit(b *testing.B) {
	for _, c := range []struct {
		name   string
		option func(*Config, *rig)
	}{{"memory", func(*Config, *rig) {}}, {"backing", noMemory}} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, 16<<20, 256<<10, c.option)
			for i := range piece.Index(64) {
				r.mustDeliver(i)
				r.writeNext(context.Background())
			}
			r.mem.lru.Wait()
			b.SetBytes(4096)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				p := make([]byte, 4096)
				for off := int64(0); pb.Next(); off = (off + 40960) % (16 << 20) {
					if _, err := r.ReadAt(context.Background(), p, off); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkWriteVerify(b *testing.B) {
	const length = 1 << 20
	r := newRig(b, 256<<20, length)
	r.start()
	b.SetBytes(length)
	b.ReportAllocs()
	n := piece.Index(0)
	for b.Loop() {
		src := r.bytes(r.Layout(), n)
		for off := int64(0); off < length; off += 16 << 10 {
			if err := r.WriteChunk(n, src[off:off+16<<10], off); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := r.Verify(n); err != nil {
			b.Fatal(err)
		}
		if n++; n == 256 {
			n = 0
			b.StopTimer()
			if err := r.Flush(context.Background()); err != nil {
				b.Fatal(err)
			}
			for i := range n + 256 {
				r.Store.lost(i, errors.New("again"))
			}
			b.StartTimer()
		}
	}
}
