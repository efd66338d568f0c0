// Package contract says, as a test suite, what every source of a release's
// content promises to those who read it: fs.Content. The store keeps to it, and
// the fakes that stand in for the store in tests do, and so does a mounted file.
//
// It must never know an implementation: it gets one, and bytes to compare with.
package contract

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"
)

// Content is what is tested.
type Content interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
}

// Subject is an implementation with its bytes. Everything is absent until
// Release is called. A read of what is absent ends with ctx, or by a deadline
// of the implementation's own that is not much longer than Patience.
type Subject struct {
	Content
	Data    []byte
	Release func()
}

// Patience is how long the suite lets reads wait for what is absent.
const Patience = 300 * time.Millisecond

var errEnough = errors.New("the reader had enough")

// Run tests implementations; open makes a new one for each test, with a few
// hundred kilobytes.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for name, test := range map[string]func(*testing.T, Subject){
		"ranges": ranges, "absent": absent, "arrives": arrives, "together": together, "cancelled": cancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// check reads n bytes at off and compares all that comes back with the data.
func (s Subject) check(t *testing.T, off int64, n int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	p := make([]byte, n)
	got, err := s.ReadAt(ctx, p, off)
	size := int64(len(s.Data))
	want := int(max(0, min(int64(n), size-off)))
	if got != want || !bytes.Equal(p[:got], s.Data[min(off, size):min(off, size)+int64(got)]) {
		t.Errorf("ReadAt(%d bytes, %d): %d bytes, want %d; or they are wrong", n, off, got, want)
	}
	switch {
	case got < n && !errors.Is(err, io.EOF):
		t.Errorf("ReadAt(%d bytes, %d): short without io.EOF: %v", n, off, err)
	case got == n && err != nil && !(errors.Is(err, io.EOF) && off+int64(n) >= size):
		t.Errorf("ReadAt(%d bytes, %d): %v", n, off, err)
	}
}

// ranges: all that was asked for, or up to the end and io.EOF.
func ranges(t *testing.T, s Subject) {
	s.Release()
	size := int64(len(s.Data))
	for _, off := range []int64{0, 1, 4095, 4096, 65535, 65536, size / 2, size - 4096, size - 1, size, size + 1, size + 1<<20} {
		for _, n := range []int{0, 1, 4096, 65537, int(size), int(size) + 1} {
			s.check(t, off, n)
		}
	}
	if n, err := s.ReadAt(t.Context(), make([]byte, 1), -1); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a negative offset: %d, %v", n, err)
	}
}

// absent: a read of what does not come ends with an error that is no io.EOF,
// having given no wrong byte, and spoils nothing for the next.
func absent(t *testing.T, s Subject) {
	began := time.Now() // before the deadline is set, which counts from there
	ctx, stop := context.WithTimeoutCause(t.Context(), Patience, errEnough)
	defer stop()
	p := make([]byte, 10_000)
	n, err := s.ReadAt(ctx, p, 70_000)
	if err == nil || errors.Is(err, io.EOF) || !bytes.Equal(p[:n], s.Data[70_000:70_000+n]) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if took := time.Since(began); took < Patience {
		t.Errorf("it gave up after %s", took)
	}
	s.Release()
	s.check(t, 70_000, len(p))
	s.check(t, 0, len(s.Data))
}

// arrives: a read waits for what comes, and gets all of it.
func arrives(t *testing.T, s Subject) {
	timer := time.AfterFunc(Patience/3, s.Release)
	defer timer.Stop()
	s.check(t, 33, 100_000)
}

// together: readers of the same and of other places do not disturb each other,
// nor does one who gives up.
func together(t *testing.T, s Subject) {
	timer := time.AfterFunc(Patience/3, s.Release)
	defer timer.Stop()
	var readers sync.WaitGroup
	defer readers.Wait()
	for i := range 16 {
		readers.Go(func() { s.check(t, int64(i/2)*8192, 20_000) })
	}
	readers.Go(func() {
		ctx, stop := context.WithTimeoutCause(t.Context(), Patience/10, errEnough)
		defer stop()
		_, _ = s.ReadAt(ctx, make([]byte, 20_000), 8192)
	})
}

// cancelled: a reader whose time is over gets an error or right bytes.
func cancelled(t *testing.T, s Subject) {
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errEnough)
	p := make([]byte, 5000)
	n, err := s.ReadAt(ctx, p, 3)
	if n == len(p) && err == nil || errors.Is(err, io.EOF) || err == nil {
		t.Errorf("what is absent was read: %d bytes, %v", n, err)
	}
	s.Release()
	if n, err = s.ReadAt(ctx, p, 3); err == nil && n != len(p) || !bytes.Equal(p[:n], s.Data[3:3+n]) {
		t.Errorf("what is here: %d bytes, %v", n, err)
	}
	s.check(t, 3, len(p))
}
