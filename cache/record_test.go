package cache

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dcfs/cache/piece"
)

// A record that fails is tried again, and what it was to make durable is
// written again first: fakeDisk checks that no record names anything else.
func TestFailedRecord(t *testing.T) {
	for name, option := range map[string]func(*Config, *rig){
		"from memory": func(*Config, *rig) {}, "from the page cache": noMemory,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 40, 4, option)
				r.disk.saveErr = syscall.EIO
				r.start()
				r.mustDeliver(0, 1, 2)
				time.Sleep(saveEvery + time.Second)
				if err, since := r.DiskError(); !errors.Is(err, ErrDisk) || !errors.Is(err, syscall.EIO) || since.IsZero() {
					t.Fatalf("DiskError says %v", err)
				}
				r.mustDeliver(3)
				if err := r.Flush(t.Context()); !errors.Is(err, syscall.EIO) {
					t.Fatalf("Flush says %v", err)
				}
				r.disk.set(func(d *fakeDisk) { d.saveErr = nil })
				if err := r.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err, _ := r.DiskError(); err != nil || r.disk.have[0] != 0xf0 {
					t.Fatalf("%v, record %x", err, r.disk.have)
				}
			})
		})
	}
}

func TestRecordIsMadeWhileTheWriterIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 4000, 4)
		r.start()
		go func() {
			for i := range piece.Index(1000) {
				r.mustDeliver(i)
				time.Sleep(100 * time.Millisecond)
			}
		}()
		time.Sleep(30 * time.Second)
		r.disk.set(func(d *fakeDisk) {
			if d.saves < 5 {
				t.Errorf("%d records in 30 s", d.saves)
			}
		})
		time.Sleep(100 * time.Second)
		before := 0
		r.disk.set(func(d *fakeDisk) { before = d.saves })
		time.Sleep(100 * time.Second)
		if r.disk.saves != before {
			t.Error("records are made though nothing changes")
		}
	})
}

func TestFlushAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 80, 4, dirtyLimit(4))
		r.disk.hold = make(chan struct{})
		r.start()
		r.mustDeliver(0)
		ctx, cancel := context.WithCancelCause(t.Context())
		errs := make(chan error, 2)
		go func() { errs <- r.Flush(ctx) }()
		synctest.Wait()
		cause := errors.New("stop")
		cancel(cause)
		if err := <-errs; !errors.Is(err, cause) {
			t.Fatalf("a cancelled Flush says %v", err)
		}
		go func() { errs <- r.Flush(context.Background()) }()
		go func() { errs <- r.deliver(1) }()
		synctest.Wait()
		r.Close()
		for range 2 {
			<-errs // or the bubble calls it a deadlock
		}
		r.mustDeliver(2) // waits for nothing any more
		close(r.disk.hold)
		synctest.Wait()
		if err := r.Flush(t.Context()); err != nil || r.disk.have[0] != 0xe0 {
			t.Fatalf("flush of a closed store: %v, record %x", err, r.disk.have)
		}
	})
}

func TestOneRecordAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 80, 4)
		r.disk.hold = make(chan struct{})
		errs := make(chan error, 3)
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { errs <- r.Flush(t.Context()) }()
		synctest.Wait()
		go func() { errs <- r.Flush(t.Context()) }()
		go func() { errs <- r.Flush(ctx) }()
		synctest.Wait() // fakeDisk complains of two records at a time
		cause := errors.New("stop")
		cancel(cause)
		if err := <-errs; !errors.Is(err, cause) {
			t.Errorf("a Flush that was cancelled says %v", err)
		}
		close(r.disk.hold)
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}
