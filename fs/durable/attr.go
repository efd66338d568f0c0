package durable

import (
	"errors"
	"fmt"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"
)

// Chown gives name itself, symlink or not, to uid and gid. The kernel takes
// setuid, setgid and file capabilities off a file that changes its owner.
func (d *Dir) Chown(name string, uid, gid uint32) error {
	return d.change("chown", name, func() error {
		return unix.Fchownat(d.fd, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW)
	})
}

// Chmod sets the 07777 bits of a file or directory.
//
//	fchmodat2(DIR, name, mode, AT_SYMLINK_NOFOLLOW)   Linux 6.6, else
//	openat(DIR, name, O_PATH|O_NOFOLLOW); chmod(/proc/self/fd/N)
func (d *Dir) Chmod(name string, mode uint32) error {
	return d.change("chmod", name, func() error {
		err := unix.Fchmodat(d.fd, name, mode, unix.AT_SYMLINK_NOFOLLOW)
		if err != unix.EOPNOTSUPP {
			return err
		}
		fd, err := unix.Openat(d.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
	})
}

// SetMtime sets the modification time of name itself, in nanoseconds since
// the epoch, and leaves the access time alone.
func (d *Dir) SetMtime(name string, ns int64) error {
	return d.change("utimes", name, func() error {
		sec, rest := ns/1e9, ns%1e9
		if rest < 0 {
			sec, rest = sec-1, rest+1e9
		}
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: sec, Nsec: rest}}
		return unix.UtimesNanoAt(d.fd, name, ts, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// SetXattr sets an extended attribute of name itself.
func (d *Dir) SetXattr(name, attr string, value []byte) error {
	return d.change("setxattr "+attr, name, func() error {
		return plain(xattr.LSet(d.link(name), attr, value))
	})
}

// RemoveXattr takes an extended attribute off name itself.
func (d *Dir) RemoveXattr(name, attr string) error {
	return d.change("removexattr "+attr, name, func() error {
		return plain(xattr.LRemove(d.link(name), attr))
	})
}

// Xattrs returns the extended attributes of name itself that this process may
// see. A filesystem that has none gives none.
func (d *Dir) Xattrs(name string) (map[string][]byte, error) {
	if err := oneElement(name); err != nil {
		return nil, d.fail("listxattr", name, err)
	}
	return d.xattrs(name)
}

func (d *Dir) xattrs(name string) (map[string][]byte, error) {
	var attrs []string
	err := ask(d.disk.BeforeLook, "listxattr", d.join(name), func() (err error) {
		attrs, err = xattr.LList(d.link(name))
		return plain(err)
	})
	if errors.Is(err, unix.ENOTSUP) || err == nil && len(attrs) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, d.fail("listxattr", name, err)
	}
	out := make(map[string][]byte, len(attrs))
	for _, a := range attrs {
		err := ask(d.disk.BeforeLook, "getxattr", d.join(name), func() (err error) {
			out[a], err = xattr.LGet(d.link(name), a)
			return plain(err)
		})
		if err != nil {
			return nil, d.fail("getxattr "+a, name, err)
		}
	}
	return out, nil
}

// link leads to name through the open directory: its last element is not
// followed by the l*xattr calls, and the one before it is the descriptor.
func (d *Dir) link(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", d.fd, name) }

// plain takes the path through /proc out of an error.
func plain(err error) error {
	if xe := (*xattr.Error)(nil); errors.As(err, &xe) {
		return xe.Err
	}
	return err
}

// OwnXattrs returns the extended attributes of the directory; see Xattrs.
func (d *Dir) OwnXattrs() (map[string][]byte, error) { return d.xattrs(".") }
