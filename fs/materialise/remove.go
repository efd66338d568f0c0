package materialise

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
)

// removedPrefix starts the name of a directory that was a release and is being
// deleted. Nothing else has such a name.
const removedPrefix = ".dcfs-removed-"

// IsRemoved reports whether name is that of a release that Remove was deleting
// when its process ended: nobody can know it by that name, and it may go.
func IsRemoved(name string) bool { return strings.HasPrefix(name, removedPrefix) }

// Remove takes the release of a receipt off this host: first its name, then
// the receipt, then the content. No symlink is followed. unused is asked once
// more when the directory has left its name and nobody can come to it any more;
// when it returns an error the directory gets its name back, and the error is
// Remove's.
//
//	renameat(DEST, PARENT/.dcfs-removed-…); fsync(PARENT)
//	unused(PARENT/.dcfs-removed-…)
//	unlinkat(STATE/receipts/….json); fsync
//	unlinkat(…) for all below; unlinkat(PARENT/.dcfs-removed-…); fsync(PARENT)
//
// A crash before the rename leaves the release whole; one after it leaves a
// directory that IsRemoved knows and at most a receipt of nothing.
func Remove(disk durable.Disk, state string, r Receipt, unused func(path string) error) error {
	parent, err := disk.OpenDir(filepath.Dir(r.Dest))
	if err != nil {
		return fmt.Errorf("removing %s: %w", r.Dest, err)
	}
	defer parent.Close()
	name, aside := filepath.Base(r.Dest), removedName(r.Dest)
	// A former removal of the same path that a crash ended.
	if err := parent.RemoveAll(aside); err != nil {
		return fmt.Errorf("removing %s: %w", r.Dest, err)
	}
	if err := putAside(parent, name, aside, r, unused); err != nil {
		return fmt.Errorf("removing %s: %w", r.Dest, err)
	}
	if err := disk.RemoveAll(receiptPath(state, r.Dest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: its receipt: %w", r.Dest, err)
	}
	return RemoveRemoved(disk, filepath.Join(parent.Path(), aside))
}

func removedName(dest string) string {
	sum := sha256.Sum256([]byte(dest))
	return removedPrefix + hex.EncodeToString(sum[:8])
}

// putAside renames the release, if it still is the one of the receipt.
func putAside(parent *durable.Dir, name, aside string, r Receipt, unused func(string) error) error {
	if err := parent.Rename(name, parent, aside); err != nil {
		if errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("%w: it is a mount point (%w)", ErrBusy, err)
		}
		return err
	}
	path := filepath.Join(parent.Path(), aside)
	id, err := identify(durable.Disk{}, path)
	if err == nil && !id.is(r) {
		err = fmt.Errorf("%w: another directory came to stand there", ErrForeign)
	}
	if err == nil {
		err = parent.Sync()
	}
	if err == nil && unused != nil {
		err = unused(path)
	}
	if err == nil {
		return nil
	}
	fd := parent.Fd()
	back := unix.Renameat2(fd, aside, fd, name, unix.RENAME_NOREPLACE)
	if back != nil {
		back = fmt.Errorf("it is %s now and cannot get its name back: %w", path, back)
	}
	return errors.Join(err, back)
}

// RemoveRemoved finishes the deletion of a directory that IsRemoved knows.
func RemoveRemoved(disk durable.Disk, path string) error {
	if !IsRemoved(filepath.Base(path)) {
		return fmt.Errorf("%w: %s is not being removed", ErrForeign, path)
	}
	return disk.RemoveAll(path)
}
