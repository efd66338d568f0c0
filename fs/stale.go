package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Uncover takes dead dcfs mounts out from under what is mounted at path: a
// process that was killed after its handover leaves one below the copy. A mount
// that is served is left where it is. The copy itself stays mounted, with all
// that is open in it; it is put aside for a moment, in which a lookup may fail
// with ENOTCONN or find the empty mountpoint.
//
// It returns how many were taken away, or how many it would look at when dry.
func Uncover(ctx context.Context, path string, dry bool, log *slog.Logger) (int, error) {
	n := 0
	for {
		below, err := coveredAt(path)
		if err != nil || len(below) == 0 || dry {
			return n + len(below), err
		}
		dead, err := uncoverOne(ctx, path)
		if err != nil {
			return n, fmt.Errorf("a dead mount below %s: %w; unmount it by hand: umount %s, twice", path, err, path)
		}
		if !dead {
			return n, nil // somebody serves it, and what he covered is his
		}
		n++
		log.Warn("took the mount of a dead process from under the copy", "mountpoint", path)
	}
}

// coveredAt lists the dcfs mounts at path that another mount there covers, the
// upper ones first. None may be on top, and nothing else may be between.
func coveredAt(path string) ([]*mountinfo.Info, error) {
	all, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != path, false })
	if err != nil {
		return nil, fmt.Errorf("read the table of mounts: %w", err)
	}
	byID := make(map[int]*mountinfo.Info, len(all))
	for _, m := range all {
		byID[m.ID] = m
	}
	top, err := topMount(path)
	if err != nil || top == nil || top.FSType == fuseType {
		return nil, err
	}
	var below []*mountinfo.Info
	for m := byID[top.Parent]; m != nil && m.FSType == fuseType; m = byID[m.Parent] {
		below = append(below, m)
	}
	return below, nil
}

// uncoverOne puts what is on top aside, takes the dcfs mount below it away if
// nobody serves that, and puts the top back.
//
//	move_mount(top → a private tmpfs)
//	statfs(path)                   ENOTCONN: its process is dead
//	umount2(path, MNT_DETACH)
//	move_mount(top → path)
func uncoverOne(ctx context.Context, path string) (dead bool, err error) {
	top, _, err := openMount(path)
	if err != nil {
		return false, err
	}
	defer unix.Close(top)
	aside, err := newStaging()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, aside.remove()) }()
	if err := unix.MoveMount(top, "", aside.fd, "", moveByFD); err != nil {
		return false, fmt.Errorf("move_mount aside: %w", err)
	}
	if dead = isDead(probe(ctx, path)); dead {
		err = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if back := unix.MoveMount(top, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); back != nil {
		err = errors.Join(err, fmt.Errorf("move_mount back: %w", back))
	}
	return dead && err == nil, err
}

// Stale lists the mountpoints, in this namespace, whose topmost mount is that
// of a dead dcfs process, and those where one may lie below the copy that it
// was handed over to. CleanStale cleans one of them.
func Stale(ctx context.Context) (dead, covered []string, err error) {
	all, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.FSType != fuseType, false })
	if err != nil {
		return nil, nil, fmt.Errorf("read the table of mounts: %w", err)
	}
	for _, m := range all {
		path := m.Mountpoint
		if slices.Contains(dead, path) || slices.Contains(covered, path) {
			continue
		}
		top, err := topMount(path)
		if err != nil {
			return nil, nil, err
		}
		switch below, _ := coveredAt(path); {
		case top == nil:
		case top.FSType == fuseType && isDead(probe(ctx, path)):
			dead = append(dead, path)
		case len(below) > 0:
			covered = append(covered, path)
		}
	}
	return dead, covered, nil
}

// CleanStale detaches what dead dcfs processes left at path, one of those that
// Stale named, and returns how many mounts that were.
func CleanStale(ctx context.Context, path string, log *slog.Logger) (int, error) {
	n := 0
	for {
		top, err := topMount(path)
		if err != nil || top == nil || top.FSType != fuseType || !isDead(probe(ctx, path)) {
			break
		}
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return n, fmt.Errorf("detach the mount of a dead process at %s: %w", path, err)
		}
		n++
	}
	more, err := Uncover(ctx, path, false, log)
	return n + more, err
}
