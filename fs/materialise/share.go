package materialise

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

// ErrOther says that a file of an older release is not the file of this one in
// every respect, so that the two cannot be one inode.
var ErrOther = errors.New("not the same file")

// sharedName is a mark in the stage directory: see dropShared.
const sharedName = "shared"

// Share makes the staged file id another name of the inode of src, a file of
// an older release, instead of a copy. That is refused (ErrOther) unless owner,
// mode, mtime, attributes and content are what the release has, so that
// nothing has to be changed on it, for files with several names or holes, and
// for an inode that another file of this release was made: the two would be one.
// It is only for Completion.Share: nothing may be written to the stage any
// more. The content of src is read and hashed.
//
// From then on who writes to one of the two releases changes both.
func (s *Stage) Share(id tree.ID, src *os.File) error {
	e := s.tree.Entry(s.tree.Inode(id))
	if e.Links != 1 || len(e.Holes) > 0 || e.Size == 0 {
		return ErrOther
	}
	h := sha256.New()
	if n, err := io.Copy(h, io.NewSectionReader(src, 0, e.Size)); err != nil || n != e.Size || [32]byte(h.Sum(nil)) != e.Sum {
		return errors.Join(ErrOther, err)
	}
	if err := s.dir.RemoveAll(cloneName); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// Through its descriptor, so that it is the very file that was hashed.
	from := fmt.Sprintf("/proc/self/fd/%d", src.Fd())
	err := s.cfg.Disk.Change("link", s.dir.Path()+"/"+cloneName, func() error {
		return unix.Linkat(unix.AT_FDCWD, from, s.dir.Fd(), cloneName, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOther, err)
	}
	ino, err := s.same(e)
	if err == nil {
		err = s.markShared(ino)
	}
	if err == nil {
		err = s.inDir(e.Parent, func(d *durable.Dir) error { return s.dir.Rename(cloneName, d, e.Name) })
	}
	// Still there after an error, or when the two were one already: rename(2)
	// does nothing then.
	if rerr := s.dir.RemoveAll(cloneName); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// same holds the link against the entry that it is to be, and returns its inode.
func (s *Stage) same(e tree.Entry) (ino uint64, err error) {
	st, err := s.dir.Lstat(cloneName)
	if err != nil {
		return 0, err
	}
	if st.Mode != unix.S_IFREG|e.Mode || st.Uid != e.UID || st.Gid != e.GID || st.Size != e.Size || st.Mtim.Nano() != e.Mtime {
		return 0, ErrOther
	}
	have, err := s.dir.Xattrs(cloneName)
	if err != nil {
		return 0, err
	}
	for name := range have {
		if scanned(name) && !has(e.Xattrs, name) {
			return 0, ErrOther
		}
	}
	for _, x := range e.Xattrs {
		if v, ok := have[x.Name]; !ok || !bytes.Equal(v, x.Value) {
			return 0, ErrOther
		}
	}
	return st.Ino, nil
}

// markShared records that there may be other releases' inodes in the stage,
// before there are; one sync is enough for all of them.
func (s *Stage) markShared(ino uint64) error {
	if s.shared[ino] {
		return fmt.Errorf("%w: another file of the release is this inode", ErrOther)
	}
	if s.shared == nil {
		f, err := s.dir.Open(sharedName, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Close(), s.dir.Sync()); err != nil {
			return err
		}
		s.shared = make(map[uint64]bool)
	}
	s.shared[ino] = true
	return nil
}

// dropShared takes out of the stage what is also a file of another release,
// after a Finish that did not come to its end: what is written to the stage
// from now on, or changed on its files, must not change that release. The
// content is missed by its pieces' hashes and comes again.
func (s *Stage) dropShared() error {
	if _, err := s.dir.Lstat(sharedName); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for id := range s.tree.Stream() {
		e := s.tree.Entry(id)
		if e.Links != 1 {
			continue
		}
		err := s.inDir(e.Parent, func(d *durable.Dir) error {
			st, err := d.Lstat(e.Name)
			if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink > 1 {
				if err = d.Remove(e.Name); err == nil {
					s.marks.forget(id)
				}
			}
			return err
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("giving up what is shared with an older release: %w", err)
		}
	}
	s.clearAll() // descriptors of what was removed
	// The mark may not go from the disk before what it warns of.
	if err := s.syncFS(); err != nil {
		return err
	}
	s.shared = nil
	return s.dir.Remove(sharedName)
}
