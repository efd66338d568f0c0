package materialise

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

// ErrNoClone says that the filesystem cannot make a file out of another's
// blocks: it has no reflinks, or the other is on another filesystem.
var ErrNoClone = errors.New("no reflinks here")

// cloneName is the file in the stage directory that gets the blocks before it
// gets its name. A crash leaves it there, and the end of the stage removes it.
const cloneName = "clone"

// Clone makes the content of the file id that of src, which is open for
// reading, by sharing its blocks (FICLONE). Nothing is copied or read, so the
// content has to be hashed before it is used. A file of which anything was
// staged already stays as it is, and fs.ErrExist says so: what was verified in
// it must not change. Other errors are ErrNoClone, and ErrShort when src does
// not have the size of the file. Call it from one goroutine.
func (s *Stage) Clone(id tree.ID, src *os.File) error {
	s.writers.RLock()
	defer s.writers.RUnlock()
	if s.sealed {
		return fmt.Errorf("write to %s: %w", s.dest, ErrSealed)
	}
	s.mu.RLock() // Close waits for it
	defer s.mu.RUnlock()
	if err := s.usable(0); err != nil {
		return err
	}
	id = s.tree.Inode(id)
	if err := s.dir.RemoveAll(cloneName); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	err := s.cloneBlocks(src, s.tree.Entry(id).Size)
	if err == nil {
		err = s.inDir(s.tree.Parent(id), func(d *durable.Dir) error {
			return s.dir.Link(cloneName, d, s.tree.Name(id))
		})
	}
	if rerr := s.dir.Remove(cloneName); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// cloneBlocks makes the file cloneName of src's blocks.
func (s *Stage) cloneBlocks(src *os.File, size int64) error {
	dst, err := s.dir.Open(cloneName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	err = dst.Clone(src)
	for _, no := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS, unix.EXDEV, unix.EINVAL, unix.EPERM} {
		if errors.Is(err, no) {
			return fmt.Errorf("%w: %w", ErrNoClone, err)
		}
	}
	if err != nil {
		return err
	}
	if fi, err := dst.Stat(); err != nil || fi.Size() != size {
		return fmt.Errorf("%s: %w: %d bytes are wanted", src.Name(), ErrShort, size)
	}
	return nil
}
