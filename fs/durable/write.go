package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const tmpMark = ".tmp-"

// WriteFile replaces the file name with data: after a crash the old content is
// there or the new. Permissions are exactly perm. Writers at the same time do
// not harm each other; one of them wins. A crash may leave a file
// .NAME.tmp-… behind.
//
//	openat(DIR, .NAME.tmp-…, O_CREAT|O_EXCL|O_WRONLY)
//	fchmod; write; fsync; close
//	renameat(.NAME.tmp-…, NAME)
//	fsync(DIR)
func (d *Dir) WriteFile(name string, data []byte, perm fs.FileMode) error {
	tmp := fmt.Sprintf(".%s%s%08x", name, tmpMark, rand.Uint32())
	f, err := d.Open(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = fill(f, data, perm)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.Rename(tmp, d, name)
	}
	if err != nil {
		_ = d.Remove(tmp) // the error that counts is the first
		return err
	}
	return d.Sync()
}

func fill(f *File, data []byte, perm fs.FileMode) error {
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// IsTemporary reports whether name is that of a file which a WriteFile that was
// killed has left.
func IsTemporary(name string) bool {
	i := strings.LastIndex(name, tmpMark)
	if i < 2 || name[0] != '.' {
		return false
	}
	random := name[i+len(tmpMark):]
	_, err := strconv.ParseUint(random, 16, 32)
	return len(random) == 8 && err == nil
}

// ReplaceSymlink makes name a symlink to target. A symlink or file that was
// there is replaced, with no moment at which name does not exist. A symlink
// changes places with the new one and stays beside it, so that going back makes
// nothing new: a full disk is not in the way. Where the filesystem cannot exchange
// two names, the old link is gone and going back needs a new one. When two do it to
// the same name at once, at least one of them gets an error: callers hold a lock.
//
//	readlinkat(DIR, .NAME.swap)         does it lead to target?
//	unlinkat(.NAME.swap)                when it leads elsewhere
//	symlinkat(target, DIR, .NAME.swap)  when it does not
//	readlinkat(NAME)
//	renameat2(.NAME.swap, NAME, RENAME_EXCHANGE), or renameat when NAME is no symlink
//	readlinkat(NAME)                    is it ours, or was somebody faster?
//	fsync(DIR)
func (d *Dir) ReplaceSymlink(target, name string) error {
	undo, err := d.besides(target, name)
	if err != nil {
		return err
	}
	if err := d.changePlaces(SwapName(name), name); err != nil {
		undo()
		return err
	}
	got, err := d.Readlink(name)
	if err != nil {
		return err
	}
	if Target(d.path, got) != Target(d.path, target) {
		return fmt.Errorf("symlink %s: somebody else changed it at the same time (it leads to %q): try again", d.join(name), got)
	}
	return d.Sync()
}

// SwapName is the name beside name of what ReplaceSymlink swaps with it.
func SwapName(name string) string { return "." + name + ".swap" }

// besides makes the link that name is to be swapped with, unless it is there.
// What it returns puts back what was there before, as far as that can be done.
func (d *Dir) besides(target, name string) (undo func(), err error) {
	beside := SwapName(name)
	old, err := d.Readlink(beside)
	if err == nil && Target(d.path, old) == Target(d.path, target) {
		return func() {}, nil
	}
	undo = func() {
		_ = d.Remove(beside) // the error that counts is the first
		if old != "" {
			_ = d.Symlink(old, beside) // its space was free a moment ago
		}
	}
	if err == nil || errors.Is(err, unix.EINVAL) { // another link, or none of ours
		err = d.Remove(beside)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := d.Symlink(target, beside); err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

// changePlaces puts the link beside in the place of name, and a link that is
// there in its place.
func (d *Dir) changePlaces(beside, name string) error {
	_, err := d.Readlink(name)
	if err == nil {
		err = d.Exchange(beside, d, name)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return d.Rename(beside, d, name)
}

// Target is where a symlink in the directory dir leads that holds to: an absolute
// path, if dir is one, of one step.
func Target(dir, to string) string {
	if !filepath.IsAbs(to) {
		to = filepath.Join(dir, to)
	}
	return filepath.Clean(to)
}
