package materialise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

// Losses counts the entries whose metadata a process that is not root could
// not keep.
type Losses struct {
	Owners int // owner or group is ours in place of the release's
	SetIDs int // setuid or setgid was left off for that reason
	Xattrs int // attributes that only root may set
}

// Losses returns what the last Finish could not keep; all zero for root.
func (s *Stage) Losses() Losses {
	s.steps.Lock()
	defer s.steps.Unlock()
	return s.losses
}

// dress gives every entry its metadata, from the leaves up: children have
// higher IDs than their directory, which therefore gets its mode, which may
// lock us out, and its mtime last.
func (s *Stage) dress(ctx context.Context) error {
	for id := tree.ID(s.tree.Len() - 1); id != tree.Root; id-- {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.tree.Inode(id) != id {
			continue
		}
		err := s.inDir(s.tree.Parent(id), func(d *durable.Dir) error {
			return s.dressEntry(d, s.tree.Name(id), s.tree.Entry(id))
		})
		if err != nil {
			return err
		}
	}
	return s.dressEntry(s.dir, "tree", s.tree.Entry(tree.Root))
}

// dressEntry works in the order that the kernel asks for: a change of owner
// takes setuid and capabilities off, and only a writable file takes user
// attributes from somebody who is not root. What is right already, after a
// crash in an earlier attempt, stays untouched.
//
//	fchownat; l*xattr; fchmodat; utimensat
func (s *Stage) dressEntry(d *durable.Dir, name string, e tree.Entry) error {
	st, err := d.Lstat(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: it was never written: %w", ErrShort, err)
		}
		return err
	}
	if err := fits(d, name, &st, e); err != nil {
		return err
	}
	owned := st.Uid == e.UID && st.Gid == e.GID
	if !owned && os.Geteuid() == 0 {
		if err := d.Chown(name, e.UID, e.GID); err != nil {
			return err
		}
	}
	touched, err := s.setXattrs(d, name, &st, e)
	if err != nil {
		return err
	}
	if err := s.setMode(d, name, &st, e, touched); err != nil {
		return err
	}
	if st.Mtim.Nano() == e.Mtime {
		return nil
	}
	return d.SetMtime(name, e.Mtime)
}

// fits makes sure that what stands in the stage is what the release has there.
func fits(d *durable.Dir, name string, st *unix.Stat_t, e tree.Entry) error {
	want := map[tree.Kind]uint32{tree.Dir: unix.S_IFDIR, tree.File: unix.S_IFREG, tree.Symlink: unix.S_IFLNK}[e.Kind]
	if st.Mode&unix.S_IFMT != want {
		return fmt.Errorf("%w: %s/%s was replaced by something else (mode %o)", ErrForeign, d.Path(), name, st.Mode)
	}
	if e.Kind == tree.File && st.Size != e.Size {
		return fmt.Errorf("%s/%s: %w: %d of %d bytes", d.Path(), name, ErrShort, st.Size, e.Size)
	}
	return nil
}

// setMode follows a change of owner or of attributes, both of which can change
// the mode.
func (s *Stage) setMode(d *durable.Dir, name string, st *unix.Stat_t, e tree.Entry, touched bool) error {
	if e.Kind == tree.Symlink {
		return nil // Linux has no modes of symlinks
	}
	want := e.Mode
	owned := st.Uid == e.UID && st.Gid == e.GID
	if !owned && os.Geteuid() != 0 {
		s.losses.Owners++
		if want&(unix.S_ISUID|unix.S_ISGID) != 0 {
			s.losses.SetIDs++
			want &^= unix.S_ISUID | unix.S_ISGID
		}
	}
	if owned && !touched && st.Mode&0o7777 == want {
		return nil
	}
	return d.Chmod(name, want)
}

// setXattrs makes the attributes of name those of the release, and says
// whether it changed any. Others go, such as an ACL that the parent hands
// down; those of the host stay.
func (s *Stage) setXattrs(d *durable.Dir, name string, st *unix.Stat_t, e tree.Entry) (touched bool, err error) {
	have, err := d.Xattrs(name)
	if err != nil {
		return false, err
	}
	for attr := range have {
		if !has(e.Xattrs, attr) && scanned(attr) {
			touched = true
			if err := d.RemoveXattr(name, attr); err != nil {
				return touched, err
			}
		}
	}
	lost := false
	for _, x := range e.Xattrs {
		if v, ok := have[x.Name]; ok && bytes.Equal(v, x.Value) {
			continue
		}
		if !touched && e.Kind != tree.Symlink && st.Mode&unix.S_IWUSR == 0 {
			if err := d.Chmod(name, st.Mode&0o777|unix.S_IWUSR); err != nil {
				return touched, err
			}
		}
		touched = true
		err := d.SetXattr(name, x.Name, x.Value)
		if err != nil && mayLose(x.Name) {
			lost, err = true, nil
		}
		if err != nil {
			return touched, fmt.Errorf("%w; the destination's filesystem has to take this attribute of the release", err)
		}
	}
	if lost {
		s.losses.Xattrs++
	}
	return touched, nil
}

func has(xs []tree.Xattr, name string) bool {
	return slices.ContainsFunc(xs, func(x tree.Xattr) bool { return x.Name == name })
}

// scanned holds for the attributes that tree.Scan takes into a release. Others
// belong to the host: labels, hashes and views that its kernel makes.
func scanned(attr string) bool {
	switch attr {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(attr, "user.") ||
		strings.HasPrefix(attr, "trusted.") && !strings.HasPrefix(attr, "trusted.overlay.")
}

// mayLose holds for what only root may set, when we are not root.
func mayLose(attr string) bool { return os.Geteuid() != 0 && !strings.HasPrefix(attr, "user.") }
