package durable

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// RemoveAll removes name and all below it, but nothing on another filesystem:
// what is mounted below stays, and is an error. What is not there is no error.
// It is not durable before the next Sync.
//
//	newfstatat(NAME); unlinkat(NAME), or for a directory:
//	openat2(NAME, RESOLVE_NO_XDEV); getdents; for each in it, sorted: the same
//	unlinkat(NAME, AT_REMOVEDIR)
func (d *Dir) RemoveAll(name string) error {
	st, err := d.Lstat(name)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err = d.empty(name); err == nil {
			err = d.Rmdir(name)
		}
	} else if err == nil {
		err = d.Remove(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// empty removes what is in the directory name. Who is not root may have to open
// it up first.
func (d *Dir) empty(name string) error {
	err := d.removeIn(name)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if cerr := d.Chmod(name, 0o700); cerr != nil {
		return errors.Join(err, cerr)
	}
	return d.removeIn(name)
}

func (d *Dir) removeIn(name string) error {
	var fd int
	err := d.look("open", name, func() (err error) {
		fd, err = unix.Openat2(d.fd, name, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW,
			Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
		})
		return err
	})
	if err != nil {
		return err
	}
	sub := &Dir{fd: fd, path: d.join(name), disk: d.disk}
	defer sub.Close()
	names, err := sub.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := sub.RemoveAll(n); err != nil {
			return err
		}
	}
	return nil
}
