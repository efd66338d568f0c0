package durable

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is a directory that is held open. The names that its methods take are
// single path elements, and a symlink is never followed: an entry that turns
// out to be one is an error (ELOOP or ENOTDIR) or, where the method says so,
// worked on itself. That is tighter than os.Root, which follows links that
// stay inside. Methods are safe for concurrent use, but not with Close.
type Dir struct {
	fd   int
	path string // for messages
	disk Disk
}

// OpenDir opens a directory by path, following symlinks: the path is the
// operator's, not a stranger's.
func (k Disk) OpenDir(path string) (*Dir, error) {
	return openDir(unix.AT_FDCWD, path, 0, path, k)
}

func openDir(at int, name string, flags int, path string, disk Disk) (*Dir, error) {
	var fd int
	err := disk.Look("open", path, func() (err error) {
		fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Dir{fd: fd, path: path, disk: disk}, nil
}

// Path returns the path that the directory had when it was opened.
func (d *Dir) Path() string { return d.path }

// Fd returns the descriptor, which stays the Dir's.
func (d *Dir) Fd() int { return d.fd }

// Close gives the descriptor back.
func (d *Dir) Close() error {
	if d.fd < 0 {
		return nil
	}
	fd := d.fd
	d.fd = -1
	return errors.Join(d.disk.Look("close", d.path, func() error { return nil }), unix.Close(fd))
}

// At opens the same directory again under another path for messages: the one
// it has been renamed to.
func (d *Dir) At(path string) (*Dir, error) { return openDir(d.fd, ".", 0, path, d.disk) }

// Sub opens the directory name.
func (d *Dir) Sub(name string) (*Dir, error) {
	if err := oneElement(name); err != nil {
		return nil, d.fail("open", name, err)
	}
	return openDir(d.fd, name, unix.O_NOFOLLOW, d.join(name), d.disk)
}

// Open opens the file name. It never waits for the other end of a FIFO.
// Creating counts as a change, which Disk.Before is told of.
func (d *Dir) Open(name string, flags int, perm fs.FileMode) (*File, error) {
	var fd int
	call := func() (err error) {
		fd, err = unix.Openat(d.fd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, unixMode(perm))
		return err
	}
	err := error(nil)
	if flags&os.O_CREATE != 0 {
		err = d.change("create", name, call)
	} else {
		err = d.look("open", name, call)
	}
	if err != nil {
		return nil, err
	}
	return &File{File: os.NewFile(uintptr(fd), d.join(name)), fd: fd, disk: d.disk}, nil
}

// Lstat describes name itself.
func (d *Dir) Lstat(name string) (st unix.Stat_t, err error) {
	err = d.look("lstat", name, func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

// Stat describes the directory.
func (d *Dir) Stat() (st unix.Stat_t, err error) {
	err = d.disk.Look("fstat", d.path, func() error { return unix.Fstat(d.fd, &st) })
	return st, err
}

// Names returns the names in the directory, sorted.
func (d *Dir) Names() ([]string, error) {
	again, err := d.At(d.path) // a position in the directory of its own
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(again.fd), d.path)
	defer f.Close()
	var names []string
	err = d.disk.Look("getdents", d.path, func() (err error) { names, err = f.Readdirnames(-1); return err })
	slices.Sort(names)
	return names, err
}

// Readlink returns what the symlink name points to.
func (d *Dir) Readlink(name string) (string, error) {
	buf, n := make([]byte, unix.PathMax+1), 0
	err := d.look("readlink", name, func() (err error) { n, err = unix.Readlinkat(d.fd, name, buf); return err })
	return string(buf[:max(n, 0)]), err
}

// Mkdir creates the directory name with permissions perm before umask.
func (d *Dir) Mkdir(name string, perm fs.FileMode) error {
	return d.change("mkdir", name, func() error { return unix.Mkdirat(d.fd, name, unixMode(perm)) })
}

// Symlink makes the new entry name a symlink to target.
func (d *Dir) Symlink(target, name string) error {
	return d.change("symlink", name, func() error { return unix.Symlinkat(target, d.fd, name) })
}

// Link makes newname in to another name of the file name.
func (d *Dir) Link(name string, to *Dir, newname string) error {
	return to.change("link", newname, func() error { return unix.Linkat(d.fd, name, to.fd, newname, 0) })
}

// Rename moves name to newname in to, as rename(2) has it.
func (d *Dir) Rename(name string, to *Dir, newname string) error {
	if err := oneElement(name); err != nil {
		return d.fail("rename", name, err)
	}
	return to.change("rename", newname, func() error { return unix.Renameat(d.fd, name, to.fd, newname) })
}

// Exchange makes name and other in to change places, at once.
//
//	renameat2(NAME, OTHER, RENAME_EXCHANGE)
func (d *Dir) Exchange(name string, to *Dir, other string) error {
	if err := oneElement(name); err != nil {
		return d.fail("exchange", name, err)
	}
	return to.change("exchange", other, func() error {
		return unix.Renameat2(d.fd, name, to.fd, other, unix.RENAME_EXCHANGE)
	})
}

// Remove removes the file or symlink name.
func (d *Dir) Remove(name string) error {
	return d.change("unlink", name, func() error { return unix.Unlinkat(d.fd, name, 0) })
}

// Rmdir removes the empty directory name.
func (d *Dir) Rmdir(name string) error {
	return d.change("rmdir", name, func() error { return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR) })
}

// Sync makes the entries of the directory last.
//
//	fsync(DIR)
func (d *Dir) Sync() error {
	return d.whole("fsync", func() error { return unix.Fsync(d.fd) })
}

// SyncFS writes out everything that the directory's filesystem holds in
// memory, and reports what could not be written since the Dir was opened or
// last asked (Linux 5.8).
//
//	syncfs(DIR)
func (d *Dir) SyncFS() error {
	return d.whole("syncfs", func() error { return unix.Syncfs(d.fd) })
}

func (d *Dir) whole(op string, call func() error) error { return d.disk.Change(op, d.path, call) }

// change makes a call on name that Disk.Before is told of.
func (d *Dir) change(op, name string, call func() error) error {
	return d.at(d.disk.Before, op, name, call)
}

// look makes a call on name that Disk.BeforeLook is told of.
func (d *Dir) look(op, name string, call func() error) error {
	return d.at(d.disk.BeforeLook, op, name, call)
}

// at makes a call on name and gives its error a path, which takes a string
// that most calls do without.
func (d *Dir) at(hook func(op, path string) error, op, name string, call func() error) error {
	err := oneElement(name)
	if err == nil && hook == nil {
		err = retry(call)
	} else if err == nil {
		err = ask(hook, op, d.join(name), call)
	}
	return d.fail(op, name, err)
}

func (d *Dir) fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return pathError(op, d.join(name), err)
}

func (d *Dir) join(name string) string { return strings.TrimSuffix(d.path, "/") + "/" + name }

// oneElement keeps a name from leading out of the directory.
func oneElement(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return unix.EINVAL
	}
	return nil
}

// unixMode is the system's form of permissions with setuid, setgid, sticky.
func unixMode(m fs.FileMode) uint32 {
	u := uint32(m.Perm())
	for _, b := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, unix.S_ISUID}, {fs.ModeSetgid, unix.S_ISGID}, {fs.ModeSticky, unix.S_ISVTX}} {
		if m&b.mode != 0 {
			u |= b.bit
		}
	}
	return u
}
