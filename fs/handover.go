package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Handover makes the path native: the directory dest, which must hold the same
// release, is bound read-only on top of the FUSE mount. Lookups from then on
// see dest; open files, mappings and working directories stay on the FUSE
// mount below, unchanged, until they are closed. dest must not lie below the
// mountpoint, unless Replace has put it there. It can be done once.
//
// The calls: open_tree(dest, CLONE); mount_setattr(ro, nodev, private);
// move_mount onto the directory below the mount, by the handle that was opened
// before mounting, which the kernel follows to the top.
func (s *Server) Handover(dest string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.bindID != 0:
		return fmt.Errorf("handover of %s: it was done before", s.path)
	case s.gone || s.ended():
		return fmt.Errorf("handover of %s: the mount has ended", s.path)
	case s.where != s.path:
		return s.coverItself(dest)
	}
	if err := checkDest(dest, s.path); err != nil {
		return err
	}
	top, id, err := openMount(s.path)
	if err != nil {
		return fmt.Errorf("handover of %s: %w", s.path, err)
	}
	defer unix.Close(top)
	if id != s.mnt.id {
		return fmt.Errorf("handover: %w: something else is mounted over %s", ErrMountpoint, s.path)
	}
	bind, err := s.cover(dest, s.at)
	if err != nil {
		return fmt.Errorf("handover of %s to %s: %w", s.path, dest, err)
	}
	s.bindID = bind
	// What lies on top of a shared mount cannot be moved away later, as
	// uncover has to; other namespaces have their copy of the bind already.
	if err := setPrivate(top); err != nil {
		s.log.Warn("cannot make the covered mount private; it will stay below", "mountpoint", s.path, "cause", err)
	}
	return nil
}

func checkDest(dest, mountpoint string) error {
	if !filepath.IsAbs(dest) {
		return fmt.Errorf("handover: %s is not an absolute path", dest)
	}
	if rel, err := filepath.Rel(mountpoint, dest); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return fmt.Errorf("handover: %s lies below the mountpoint %s", dest, mountpoint)
	}
	return nil
}

// cover binds dest on top of the directory at, or what is mounted there, and
// returns the number of the new mount.
func (s *Server) cover(dest string, at int) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dest, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return 0, fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(fd)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if s.cfg.NoSUID {
		attr.Attr_set |= unix.MOUNT_ATTR_NOSUID
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return 0, fmt.Errorf("mount_setattr: %w", err)
	}
	id, err := mountID(fd)
	if err != nil {
		return 0, err
	}
	if err := unix.MoveMount(fd, "", at, "", moveByFD); err != nil {
		return 0, fmt.Errorf("move_mount: %w", err)
	}
	return id, nil
}

// uncover takes the FUSE mount out from under the bind mount. No call reaches
// a covered mount, so the two change places first: the bind moves to a mount
// of our own, from there beneath the FUSE mount (Linux 6.5), and the FUSE
// mount, now on top, is detached. At every instant the path shows the release.
func (s *Server) uncover() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || !s.attached() {
		s.gone = true
		return nil
	}
	bind, id, err := openMount(s.path)
	if err != nil {
		return err
	}
	defer unix.Close(bind)
	if id == s.bindID {
		err = s.exchange(bind)
	} else if id != s.mnt.id { // somebody may have unmounted the bind
		err = fmt.Errorf("%w: something else is mounted over %s", ErrMountpoint, s.path)
	}
	if err != nil {
		return fmt.Errorf("the ended FUSE mount stays below %s: %w", s.path, err)
	}
	if err := unix.Unmount(s.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", s.path, err)
	}
	s.gone = true
	return nil
}

// exchange brings the FUSE mount on top of bind, which covers it.
func (s *Server) exchange(bind int) (err error) {
	aside, err := newStaging()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, aside.remove()) }()
	if err := unix.MoveMount(bind, "", aside.fd, "", moveByFD); err != nil {
		return fmt.Errorf("move_mount the bind aside: %w", err)
	}
	top, id, err := openMount(s.path)
	if err == nil {
		defer unix.Close(top)
		if id == s.mnt.id {
			err = unix.MoveMount(bind, "", top, "", moveByFD|moveMountBeneath)
		} else {
			err = ErrMountpoint
		}
	}
	if err == nil {
		return nil
	}
	back := unix.MoveMount(bind, "", s.at, "", moveByFD)
	return errors.Join(fmt.Errorf("move_mount beneath: %w", err), back)
}

// staging is a private mount in a temporary directory, where a mount can be
// put for a moment. Its parent may be shared; from a shared one nothing could
// be moved away again.
type staging struct {
	dir string
	fd  int
}

func newStaging() (*staging, error) {
	dir, err := os.MkdirTemp("", ".dcfs-")
	if err != nil {
		return nil, err
	}
	fd, err := mountTmpfs(dir)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return &staging{dir, fd}, nil
}

func mountTmpfs(dir string) (int, error) {
	fsfd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen tmpfs: %w", err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, fmt.Errorf("fsconfig tmpfs: %w", err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("fsmount tmpfs: %w", err)
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("move_mount tmpfs: %w", err)
	}
	if err := setPrivate(fd); err != nil {
		return -1, errors.Join(err, unix.Close(fd), unix.Unmount(dir, unix.MNT_DETACH))
	}
	return fd, nil
}

func (s *staging) remove() error {
	return errors.Join(unix.Close(s.fd), unix.Unmount(s.dir, unix.MNT_DETACH), os.Remove(s.dir))
}
