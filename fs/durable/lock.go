package durable

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrHeld says that another process, or another part of this one, holds a lock.
var ErrHeld = errors.New("the lock is held")

// Lock is a lock that is held until Release or the end of the process.
type Lock struct{ f *File }

// Lock takes the lock file name without waiting. The file is created when it
// is missing and stays there; it holds the process id of the last holder. When
// somebody else has it the error wraps ErrHeld and says who.
//
//	openat(DIR, NAME, O_CREAT|O_RDWR)
//	flock(LOCK_EX|LOCK_NB)
//	fstat: a file that was unlinked meanwhile locks nothing: from the start
//	ftruncate; pwrite (process id)
func (d *Dir) Lock(name string) (*Lock, error) {
	for range 10 {
		f, err := d.Open(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		l, err := lockFile(f)
		if l == nil {
			f.Close()
		}
		if l != nil || err != nil {
			return l, err
		}
	}
	return nil, fmt.Errorf("%s: %w: its file keeps being removed", d.join(name), ErrHeld)
}

// Lock takes the lock file path; see Dir.Lock.
func (k Disk) Lock(path string) (l *Lock, err error) {
	err = k.inParent(path, func(d *Dir, name string) error {
		l, err = d.Lock(name)
		return err
	})
	return l, err
}

// lockFile returns nil and no error when f has been unlinked.
func lockFile(f *File) (*Lock, error) {
	err := f.disk.Look("flock", f.Name(), func() error { return unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s: %w by %s", f.Name(), ErrHeld, holder(f.File))
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := f.disk.Look("fstat", f.Name(), func() error { return unix.Fstat(f.fd, &st) }); err != nil {
		return nil, err
	}
	if st.Nlink == 0 {
		return nil, nil
	}
	// The process id is for the message only: a full disk is no reason not to lock.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &Lock{f}, nil
}

// holder says who wrote the lock file.
func holder(f *os.File) string {
	buf := make([]byte, 20)
	n, _ := f.ReadAt(buf, 0)
	pid := strings.TrimSpace(string(buf[:n]))
	if _, err := strconv.Atoi(pid); err != nil {
		return "another process"
	}
	comm, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return "process " + pid
	}
	return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(comm)))
}

// Release gives the lock back. Releasing twice is no error.
//
//	close
func (l *Lock) Release() error {
	if err := l.f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
