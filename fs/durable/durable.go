// Package durable makes changes to a filesystem that survive a crash: small
// files, symlinks and directories that are replaced whole or not at all, and
// are on the disk when the call returns. Above each function stands the exact
// sequence of its system calls. Parent directories are held open, so that a
// directory that is renamed meanwhile does not lead a change astray.
//
// It must never leave the old and the new state mixed, follow a symlink in a
// name that it was given relative to a Dir, or swallow an error of a sync.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Disk is where changes are made. The zero Disk is the real one. It is safe
// for concurrent use.
//
// Its two hooks are there for tests that write down the order of calls, let
// one of them fail or end the process at one, and must be safe for concurrent
// use. They are given a call's name ("rename", "fsync") and the path that it
// works on; an error that they return is returned in place of the call. EINTR
// is one that the caller never sees: the call is made again, as after the real
// one.
type Disk struct {
	// Before, if set, is told of every call that changes the disk or makes a
	// change last, before that call. ErrCutShort, in place of a write, makes
	// the kernel take only the first half of the bytes.
	Before func(op, path string) error
	// BeforeLook, if set, is told of all other calls: those that open, look,
	// read, lock and close.
	BeforeLook func(op, path string) error
}

// ErrCutShort is what Disk.Before returns for a short write.
var ErrCutShort = errors.New("short write")

// Change makes a system call of the caller's own that changes the disk, as one
// that the hooks know of.
func (k Disk) Change(op, path string, call func() error) error {
	return pathError(op, path, ask(k.Before, op, path, call))
}

// Look makes a system call of the caller's own that changes nothing, as one
// that the hooks know of.
func (k Disk) Look(op, path string, call func() error) error {
	return pathError(op, path, ask(k.BeforeLook, op, path, call))
}

// ask makes a call that hook is told of, again as long as it is interrupted.
func ask(hook func(op, path string) error, op, path string, call func() error) error {
	if hook == nil {
		return retry(call)
	}
	return retry(func() error {
		if err := hook(op, path); err != nil {
			return err
		}
		return call()
	})
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// pathError gives an error a path, in place of one that leads through /proc.
func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// WriteFile replaces the file path with data, durably and atomically: after a
// crash the old content is there or the new. Permissions are exactly perm.
// See Dir.WriteFile for the system calls.
func (k Disk) WriteFile(path string, data []byte, perm fs.FileMode) error {
	return k.inParent(path, func(d *Dir, name string) error { return d.WriteFile(name, data, perm) })
}

// ReplaceSymlink makes path a symlink to target, durably and atomically.
// See Dir.ReplaceSymlink for the system calls and its limits.
func (k Disk) ReplaceSymlink(target, path string) error {
	return k.inParent(path, func(d *Dir, name string) error { return d.ReplaceSymlink(target, name) })
}

// RemoveAll removes path with all below it, durably. What is not there is no
// error.
//
//	open(PARENT, O_DIRECTORY)
//	unlinkat(…), for everything below path, then path
//	fsync(PARENT)
func (k Disk) RemoveAll(path string) error {
	return k.inParent(path, func(d *Dir, name string) error {
		if err := d.RemoveAll(name); err != nil {
			return err
		}
		return d.Sync()
	})
}

// Rename moves from to to, durably. What was at to is replaced as rename(2)
// has it: a file by a file, an empty directory by a directory.
//
//	open(PARENT of from, O_DIRECTORY); open(PARENT of to, O_DIRECTORY)
//	renameat(from, to)
//	fsync(PARENT of to)    first: a crash between may show the entry twice,
//	fsync(PARENT of from)  but never loses it
func (k Disk) Rename(from, to string) error {
	return k.inParent(from, func(df *Dir, oldname string) error {
		return k.inParent(to, func(dt *Dir, newname string) error {
			if err := df.Rename(oldname, dt, newname); err != nil {
				return err
			}
			if err := dt.Sync(); err != nil {
				return err
			}
			return df.Sync()
		})
	})
}

// MkdirAll creates path and its missing parents with permissions perm (before
// umask), durably. An existing directory is left as it is; a symlink to one
// counts as one.
//
//	stat(path); for each that is missing, the topmost first:
//	open(PARENT, O_DIRECTORY)
//	mkdirat(path)
//	fsync(PARENT)
func (k Disk) MkdirAll(path string, perm fs.FileMode) error {
	var fi fs.FileInfo
	err := k.Look("stat", path, func() (err error) { fi, err = os.Stat(path); return err })
	if err == nil && !fi.IsDir() {
		return &fs.PathError{Op: "mkdir", Path: path, Err: unix.ENOTDIR}
	}
	parent := filepath.Dir(path)
	if err == nil || !os.IsNotExist(err) || parent == path {
		return err
	}
	if err := k.MkdirAll(parent, perm); err != nil {
		return err
	}
	return k.inParent(path, func(d *Dir, name string) error {
		if err := d.Mkdir(name, perm); err != nil && !os.IsExist(err) {
			return err
		}
		return d.Sync()
	})
}

// SyncFS writes out everything that the filesystem of dir holds in memory.
//
//	open(dir, O_DIRECTORY)
//	syncfs(dir)
func (k Disk) SyncFS(dir string) error {
	d, err := k.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.SyncFS()
}

// inParent calls do with path's parent directory open and path's last element.
func (k Disk) inParent(path string, do func(d *Dir, name string) error) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	d, err := k.OpenDir(filepath.Dir(abs))
	if err != nil {
		return err
	}
	defer d.Close()
	return do(d, filepath.Base(abs))
}

// Resolve returns path absolute, with the symlinks among its parents resolved
// as far as these exist. The last element is not followed: it may be a symlink
// that is about to be replaced, or a mount that does not answer. One entry has
// one such path, whichever way it is named.
func (k Disk) Resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	dir, rest := filepath.Dir(abs), filepath.Base(abs)
	for dir != filepath.Dir(dir) {
		var real string
		err := k.Look("resolve", dir, func() (err error) { real, err = filepath.EvalSymlinks(dir); return err })
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !os.IsNotExist(err) {
			return "", err
		}
		dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest)
	}
	return abs, nil
}

// Resolve is Disk.Resolve on the real disk.
func Resolve(path string) (string, error) { return Disk{}.Resolve(path) }

// ReadFile returns what the file path holds, at most limit bytes of it.
func (k Disk) ReadFile(path string, limit int64) (data []byte, err error) {
	err = k.inParent(path, func(d *Dir, name string) error {
		f, err := d.Open(name, os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		data, err = io.ReadAll(io.LimitReader(f, limit))
		return err
	})
	return data, err
}
