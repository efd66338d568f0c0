// Package faults lets system calls fail, one at a time, and ends the process at
// one, for tests of what has to survive that: a Job is run as often as it makes
// calls, with another call failing each time, on the real filesystem.
//
// It must never make a call succeed that did not happen, or be part of a
// program: only tests import it.
package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
)

// Job is what is swept.
type Job struct {
	// Prepare fills the empty directory dir with what stands before the job.
	Prepare func(t *testing.T, dir string)
	// Run does the job in dir, on disk and nothing else. It is what the next
	// start of a program does, too: after a fault it has to finish the job.
	Run func(dir string, disk durable.Disk) error
	// Holds checks what has to hold at every instant, also in the middle.
	Holds func(t *testing.T, dir string)
	// Done checks that the job is done, with nothing left over.
	Done func(t *testing.T, dir string)
}

// Fault is one way in which calls fail.
type Fault struct {
	Name string
	// Fail returns what call number n of those that the fault is for returns,
	// where number at is to be the first that fails.
	Fail func(op string, n, at int) error
	// Only, if set, is the one kind of call that the fault is for.
	Only string
	// Survived says that the job has to succeed all the same.
	Survived bool
}

// once fails one call.
func once(err error) func(string, int, int) error {
	return func(_ string, n, at int) error {
		if n == at {
			return err
		}
		return nil
	}
}

// All are the faults that a disk can have: every call fails once with each of
// these errors, and every write is cut short once, with room for the rest and
// without.
var All = []Fault{
	{Name: "ENOSPC", Fail: once(unix.ENOSPC)},
	{Name: "EIO", Fail: once(unix.EIO)},
	{Name: "EACCES", Fail: once(unix.EACCES)},
	{Name: "EINTR", Fail: once(unix.EINTR), Survived: true},
	{Name: "short write", Only: "write", Fail: once(durable.ErrCutShort), Survived: true},
	{Name: "short write, then ENOSPC", Only: "write", Fail: func(_ string, n, at int) error {
		return errors.Join(once(durable.ErrCutShort)("", n, at), once(unix.ENOSPC)("", n, at+1))
	}},
}

// meter counts calls and lets them fail.
type meter struct {
	fault Fault
	at    int

	mu    sync.Mutex
	calls int
	what  string // the call that failed
	err   error  // and how
}

func (m *meter) hook(op, path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault.Only != "" && m.fault.Only != op {
		return nil
	}
	m.calls++
	err := m.fault.Fail(op, m.calls, m.at)
	if err != nil {
		m.what, m.err = op+" "+path, err
	}
	return err
}

// Sweep runs the job with one call failing, for every call that it makes and
// every fault, or only those named, and then once more without.
func Sweep(t *testing.T, job Job, only ...string) {
	for _, f := range All {
		if len(only) > 0 && !slices.Contains(only, f.Name) {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			at := 1
			for job.fails(t, f, at) {
				at++
			}
			if at < 2 {
				t.Error("no call failed: the sweep is not one")
			}
			t.Logf("%d calls failed, each once", at-1)
		})
	}
}

// fails lets call number at fail, and returns false when there are fewer.
func (j Job) fails(t *testing.T, f Fault, at int) bool {
	t.Helper()
	dir := ramDir(t)
	j.Prepare(t, dir)
	m := &meter{fault: f, at: at}
	err := j.Run(dir, durable.Disk{Before: m.hook, BeforeLook: m.hook})
	j.Holds(t, dir)
	switch {
	case m.err == nil && err != nil:
		t.Fatalf("nothing failed, and the job did: %v", err)
	case f.Survived && err != nil:
		t.Errorf("call %d (%s): the job does not survive it: %v", at, m.what, err)
	case err == nil:
		j.Done(t, dir)
	case !errors.Is(err, m.err):
		t.Errorf("call %d (%s): the error hides the cause: %v", at, m.what, err)
	}
	if err := j.Run(dir, durable.Disk{}); err != nil {
		t.Errorf("call %d (%s): the next start does not finish the job: %v", at, m.what, err)
	}
	j.Holds(t, dir)
	j.Done(t, dir)
	if t.Failed() {
		t.Fatalf("that was call %d (%s)", at, m.what)
	}
	return m.err != nil
}

// Dir returns a new directory without symlinks in its path, so that a path in
// a log is the path that was given.
func Dir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// ramDir is a Dir on a filesystem on which a sync takes no time, if there is
// one: an error in place of a call is the same on every other, and a process
// that dies takes nothing from any of them.
func ramDir(t *testing.T) string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		return Dir(t)
	}
	dir, err := os.MkdirTemp("/dev/shm", "dcfs-faults-")
	if err != nil {
		return Dir(t)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Listing describes all in a directory: names, modes, owners, times, numbers of
// links, attributes and content.
func Listing(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		fmt.Fprintf(&out, "%q %s\n", rel, describe(t, p))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
