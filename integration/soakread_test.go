package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// reader reads a host's mount and copy all the time.
type reader struct {
	v     *victim
	r     *rand.Rand
	names []string
}

func (s *soak) reader(v *victim) *reader {
	r := &reader{v: v, r: s.rng(fmt.Sprint(v.Name, v.r.Uint64()))}
	for name := range s.content {
		r.names = append(r.names, name)
	}
	return r
}

func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		r.v.cleaning.RLock()
		what, err := r.look()
		r.v.cleaning.RUnlock()
		if err != nil {
			r.v.t.Errorf("%s: %v", r.v.Name, err)
			return
		}
		r.v.s.mu.Lock()
		r.v.s.seen[what]++
		r.v.s.mu.Unlock()
		time.Sleep(3 * time.Millisecond) // leaves the machine to others
	}
}

// look reads a part of a file and says what came of it. The error is a wrong
// byte, or a failure that nothing excuses.
func (r *reader) look() (string, error) {
	name := r.names[r.r.IntN(len(r.names))]
	if r.r.IntN(3) == 0 {
		// The copy: once it stands, all of it stands.
		if _, err := os.Lstat(r.v.dest); err != nil {
			return "copy: not yet", nil
		}
		if err := r.read(r.v.dest, name); err != nil {
			return "", fmt.Errorf("the copy stands, but: %w", err)
		}
		return "copy: right", nil
	}
	err := r.read(r.v.mountpoint, name)
	if err == nil {
		return "mount: right", nil
	}
	// Between a kill and the next mount.
	for _, excuse := range []syscall.Errno{syscall.ENOTCONN, syscall.ECONNABORTED, syscall.ENOENT, syscall.EIO} {
		if errors.Is(err, excuse) {
			return "mount: " + excuse.Error(), nil
		}
	}
	return "", err
}

// errWrong says that a byte was not the source's.
var errWrong = errors.New("wrong bytes")

func (r *reader) read(dir, name string) error {
	want := r.v.s.content[name]
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() != int64(len(want)) {
		return fmt.Errorf("%w: %s has %d bytes, want %d", errWrong, f.Name(), fi.Size(), len(want))
	}
	off := r.r.IntN(len(want) + 1)
	n := min(len(want)-off, 1+r.r.IntN(64<<10))
	got := make([]byte, n)
	if k, err := f.ReadAt(got, int64(off)); k < n {
		return fmt.Errorf("%s: %d bytes of %d at %d: %w", f.Name(), k, n, off, err)
	}
	if !bytes.Equal(got, want[off:off+n]) {
		return fmt.Errorf("%w: %s, %d bytes at %d", errWrong, f.Name(), n, off)
	}
	return nil
}
