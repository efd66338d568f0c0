package materialise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

// marks remembers how each staged file looked when this process changed it last
// or read it first: its size and its ctime, which nobody can set. A file that
// looks otherwise was changed by somebody else. Where the kernel's clock is
// coarse, a change within a few milliseconds of our own looks like it.
type marks struct {
	of      []atomic.Uint32 // by file; 0 for one that was not touched yet
	foreign sync.Map        // of tree.ID: somebody else changed it; few, if any
	locks   [64]sync.Mutex  // by file: one change at a time, between two looks at it
}

func newMarks(n int) *marks { return &marks{of: make([]atomic.Uint32, n)} }

// markOf is a hash of 31 bits, to be small: it is there to notice accidents.
func markOf(st *unix.Stat_t) uint32 {
	const odd = 0x9e3779b97f4a7c15 // spreads every bit over the upper half
	h := (uint64(st.Ctim.Nano()) ^ uint64(st.Size)*odd) * odd
	return uint32(h>>32) | 1
}

// writing calls do, which writes to the file id, and marks the file as we left
// it. A nil marks only calls.
func (m *marks) writing(id tree.ID, file *durable.File, do func() error) error {
	if m == nil {
		return do()
	}
	lock := &m.locks[int(id)%len(m.locks)]
	lock.Lock()
	defer lock.Unlock()
	m.look(id, file)
	err := do()
	var st unix.Stat_t
	if unix.Fstat(int(file.Fd()), &st) == nil {
		m.of[id].Store(markOf(&st))
	}
	return err
}

// reading marks a file that an earlier process wrote, before its content is
// hashed for the first time.
func (m *marks) reading(id tree.ID, file *durable.File) {
	if m == nil || m.of[id].Load() != 0 {
		return
	}
	lock := &m.locks[int(id)%len(m.locks)]
	lock.Lock()
	defer lock.Unlock()
	m.look(id, file)
}

// look compares a file with its mark, or gives it the first one. The file's
// lock is held.
func (m *marks) look(id tree.ID, file *durable.File) {
	var st unix.Stat_t
	if unix.Fstat(int(file.Fd()), &st) != nil {
		return
	}
	is := markOf(&st)
	if !m.of[id].CompareAndSwap(0, is) && m.of[id].Load() != is {
		m.foreign.Store(id, nil)
	}
}

// forget is for a file that we removed.
func (m *marks) forget(id tree.ID) {
	m.of[id].Store(0)
	m.foreign.Delete(id)
}

// ChangedError says that staged files were changed by somebody else. What they
// hold has to be hashed again before Finish can go on.
type ChangedError struct {
	Files []tree.ID
	first string // path of the first
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%d staged files were changed by somebody else, the first is %s; keep other programs away from the stage", len(e.Files), e.first)
}

// Unwrap makes it ErrBusy: somebody works there.
func (e *ChangedError) Unwrap() error { return ErrBusy }

// unchanged returns a ChangedError when files do not look as we left them, and
// takes for right from now on how they look. Writes are sealed off.
func (s *Stage) unchanged(ctx context.Context) error {
	var found ChangedError
	for id := range s.tree.Stream() {
		if err := ctx.Err(); err != nil {
			return err
		}
		foreign, err := s.look(id)
		if err != nil {
			return err
		}
		if foreign {
			found.Files = append(found.Files, id)
		}
	}
	if len(found.Files) == 0 {
		return nil
	}
	found.first = s.root.Path() + "/" + s.tree.Path(found.Files[0])
	return &found
}

// look reports whether somebody else changed the file id, and forgets it.
func (s *Stage) look(id tree.ID) (foreign bool, err error) {
	_, foreign = s.marks.foreign.Load(id)
	if s.marks.of[id].Load() != 0 {
		var st unix.Stat_t
		err = s.inDir(s.tree.Parent(id), func(d *durable.Dir) (err error) {
			st, err = d.Lstat(s.tree.Name(id))
			return err
		})
		if is := markOf(&st); err == nil && s.marks.of[id].Swap(is) != is {
			foreign = true
			err = s.cut(id, &st)
		}
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		foreign, err = true, nil // it is gone, or something stands in its place
		s.marks.of[id].Store(0)
	}
	// An error keeps the note for the next attempt.
	if err == nil {
		s.marks.foreign.Delete(id)
	} else if foreign {
		s.marks.foreign.Store(id, nil)
	}
	return foreign, err
}

// cut takes off what somebody else appended to the file id.
func (s *Stage) cut(id tree.ID, st *unix.Stat_t) error {
	size := s.tree.Entry(id).Size
	if st.Size <= size || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	return s.use(id, &s.writes, os.O_WRONLY, func(file *durable.File) error {
		return s.marks.writing(id, file, func() error { return file.Truncate(size) })
	})
}

// remark takes files for ours as they look, after a Finish that did not come
// to its end for the reason given: we may have changed their metadata. A
// ChangedError comes before that.
func (s *Stage) remark(why error) {
	if changed := (*ChangedError)(nil); errors.As(why, &changed) {
		return
	}
	for id := range s.tree.Stream() {
		if s.marks.of[id].Load() != 0 {
			_ = s.inDir(s.tree.Parent(id), func(d *durable.Dir) error { s.marks.adopt(id, d, s.tree.Name(id)); return nil })
		}
	}
}

// adopt takes the file id, which is name in d, for ours as it looks.
func (m *marks) adopt(id tree.ID, d *durable.Dir, name string) {
	if st, err := d.Lstat(name); m != nil && err == nil {
		m.of[id].Store(markOf(&st))
	}
}
