package durable

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
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
// there is replaced, with no moment at which name does not exist. When two do
// it to the same name at once, at least one of them gets an error: callers
// hold a lock. The temporary name is always the same, so that a crash leaves
// at most one entry, which the next call removes.
//
//	unlinkat(DIR, .NAME.swap)          when a crash left it
//	symlinkat(target, DIR, .NAME.swap)
//	renameat(.NAME.swap, NAME)
//	readlinkat(NAME)                   is it ours, or was somebody faster?
//	fsync(DIR)
func (d *Dir) ReplaceSymlink(target, name string) error {
	tmp := "." + name + ".swap"
	err := d.Symlink(target, tmp)
	if os.IsExist(err) {
		if err = d.Remove(tmp); err == nil {
			err = d.Symlink(target, tmp)
		}
	}
	if err != nil {
		return err
	}
	if err := d.Rename(tmp, d, name); err != nil {
		_ = d.Remove(tmp)
		return err
	}
	got, err := d.Readlink(name)
	if err != nil {
		return err
	}
	if got != target {
		return fmt.Errorf("symlink %s: somebody else changed it at the same time (it leads to %q): try again", d.join(name), got)
	}
	return d.Sync()
}
