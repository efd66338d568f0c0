package materialise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

type noSpace struct{ msg string }

func (e *noSpace) Error() string   { return e.msg }
func (e *noSpace) Unwrap() []error { return []error{ErrSpace, unix.ENOSPC} }

// spaceError puts ErrSpace on an error that says that the disk is full.
func spaceError(err error) error {
	if (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && !errors.Is(err, ErrSpace) {
		return fmt.Errorf("%w: %w; free some and try again", ErrSpace, err)
	}
	return err
}

// CheckSpace holds what the release t needs at dest against what the
// filesystem has free for those who are not root, blocks and inodes; what an
// earlier run staged counts as there. It creates nothing. The error wraps
// ErrSpace and ENOSPC and says what is needed, what is free and what to try.
func CheckSpace(dest string, t *tree.Tree) error {
	abs, err := durable.Resolve(dest)
	if err != nil {
		return fmt.Errorf("destination %s: %w", dest, err)
	}
	var fsinfo unix.Statfs_t
	at := filepath.Dir(abs)
	for err = unix.Statfs(at, &fsinfo); err == unix.ENOENT && at != filepath.Dir(at); err = unix.Statfs(at, &fsinfo) {
		at = filepath.Dir(at)
	}
	if err != nil {
		return fmt.Errorf("free space at %s: %w", at, err)
	}
	stagedBytes, stagedInodes := staged(filepath.Join(filepath.Dir(abs), stageName(abs)))
	bytes, inodes := needs(t, fsinfo.Bsize)
	return compare(abs, want{bytes - stagedBytes, inodes - stagedInodes}, &fsinfo)
}

type want struct{ bytes, inodes int64 }

func compare(dest string, need want, have *unix.Statfs_t) error {
	free := int64(have.Bavail) * have.Bsize
	if need.bytes > free {
		return &noSpace{fmt.Sprintf("%v for %s: %s needed, %s free; free at least %s or choose a destination on another disk",
			ErrSpace, dest, size(need.bytes), size(free), size(need.bytes-free))}
	}
	// Filesystems without a fixed number of inodes say 0 of 0.
	if have.Files > 0 && need.inodes > int64(have.Ffree) {
		return &noSpace{fmt.Sprintf("%v for %s: %d inodes needed, %d free; remove small files or choose a destination on another disk",
			ErrSpace, dest, need.inodes, have.Ffree)}
	}
	return nil
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// needs adds up whole blocks: of every file without its holes, and one for
// every directory and every symlink too long for its inode.
func needs(t *tree.Tree, block int64) (bytes, inodes int64) {
	block = max(block, 512)
	for id := tree.Root; t.Has(id); id++ {
		if t.Inode(id) != id {
			continue
		}
		inodes++
		e := t.Entry(id)
		data := e.Size
		for _, h := range e.Holes {
			data -= h.Length / block * block
		}
		if e.Kind == tree.Dir || e.Kind == tree.Symlink {
			data = block
		}
		if e.Kind == tree.Symlink && len(e.Target) < 60 {
			data = 0
		}
		bytes += (max(data, 0) + block - 1) / block * block
	}
	return bytes, inodes
}

// staged adds up what the stage holds; what cannot be seen counts as nothing.
func staged(stage string) (bytes, inodes int64) {
	_ = filepath.WalkDir(stage, func(p string, e fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(p, &st) == nil {
			bytes += st.Blocks * 512
			inodes++
		}
		if errors.Is(err, os.ErrNotExist) && p == stage {
			return filepath.SkipAll
		}
		return nil
	})
	return bytes, inodes
}
