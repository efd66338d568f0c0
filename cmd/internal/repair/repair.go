// Package repair puts a fresh copy of a release in the place of a damaged one.
//
// It must never write into the damaged directory, nor take it away before the
// new copy stands whole beside it: readers see the one or the other.
package repair

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/materialise"
	"dcfs/fs/release"
)

// Replace fetches the release anew beside dir and swaps the two.
//
// fetch must leave the whole release at the path that it is given and a
// receipt for it in state. When Replace fails before the swap, dir is as it
// was; a copy that was fetched only in part is resumed by the next call.
//
//	fetch(PARENT/.BASE.repair)
//	renameat2(EXCHANGE), fsync(PARENT)
//	receipt for DIR, none for the other
//	remove PARENT/.BASE.repair, which is the damaged tree now
func Replace(ctx context.Context, state, dir string, rel *release.Release, fetch func(ctx context.Context, dest string) error) error {
	named := dir
	// A symlink such as "current" stays: what it leads to is what is repaired.
	dir, err := filepath.EvalSymlinks(named)
	if err == nil {
		dir, err = durable.Resolve(dir)
	}
	if err != nil {
		return fmt.Errorf("repair %s: %w", named, err)
	}
	fresh := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".repair")
	if err := fetch(ctx, fresh); err != nil {
		return fmt.Errorf("repair %s: %w", dir, err)
	}
	whole, err := materialise.Complete(state, fresh, rel.InfoHash)
	if err == nil && !whole {
		err = errors.New("the new copy is not whole")
	}
	if err == nil {
		err = exchange(fresh, dir)
	}
	if err != nil {
		return fmt.Errorf("repair %s: %w", dir, err)
	}
	if err := materialise.WriteReceipt(state, dir, rel.Name, rel.InfoHash); err != nil {
		return fmt.Errorf("repair %s: %w", dir, err)
	}
	if err := materialise.RemoveReceipt(state, fresh); err != nil {
		return fmt.Errorf("repair %s: %w", dir, err)
	}
	if err := (durable.Disk{}).RemoveAll(fresh); err != nil {
		return fmt.Errorf("repair %s: it is right now, but the damaged copy could not be removed: %w", dir, err)
	}
	return nil
}

// exchange swaps two directories of one parent, durably.
func exchange(a, b string) error {
	parent, err := durable.Disk{}.OpenDir(filepath.Dir(a))
	if err != nil {
		return err
	}
	defer parent.Close()
	fd := parent.Fd()
	err = unix.Renameat2(fd, filepath.Base(a), fd, filepath.Base(b), unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: %s is a mount point: unmount it first", materialise.ErrBusy, b)
	}
	if err != nil {
		return fmt.Errorf("swap %s with %s: %w", a, b, err)
	}
	return parent.Sync()
}
