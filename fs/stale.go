package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// lookBelow bounds how long a copy is put aside for a look below it.
const lookBelow = 300 * time.Millisecond

// Uncover takes dead dcfs mounts out from under what is mounted at path: a
// process that was killed after its handover leaves one below the copy. A mount
// that is served is left where it is. The copy itself stays mounted, with all
// that is open in it; it is put aside for a moment, in which a lookup may fail
// with ENOTCONN or find the empty mountpoint.
//
// It returns how many were taken away, or how many it would look at when dry.
func Uncover(ctx context.Context, path string, dry bool, log *slog.Logger) (int, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
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
//	detachDead(path)
//	move_mount(top → path)
func uncoverOne(ctx context.Context, path string) (dead bool, err error) {
	want, err := topMount(path)
	if err != nil || want == nil || want.FSType == fuseType {
		return false, err
	}
	top, id, err := openMount(path)
	if err != nil {
		return false, err
	}
	defer unix.Close(top)
	if id != want.ID {
		return false, nil // somebody else looks below it just now
	}
	aside, err := newStaging()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, aside.remove()) }()
	if err := unix.MoveMount(top, "", aside.fd, "", moveByFD); err != nil {
		return false, fmt.Errorf("move_mount aside: %w", err)
	}
	quick, cancel := context.WithTimeout(ctx, lookBelow)
	defer cancel()
	if dead, err = detachDead(quick, path); !dead {
		err = nil // it answers, or does not: both is for its process to end
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
		case top.FSType == fuseType && isDead(ctx, path):
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
		if err != nil || top == nil || top.FSType != fuseType {
			break
		}
		dead, err := detachDead(ctx, path)
		if dead && err != nil {
			return n, fmt.Errorf("detach the mount of a dead process at %s: %w", path, err)
		}
		if errors.Is(err, errChanged) {
			continue
		}
		if !dead {
			break
		}
		n++
	}
	more, err := Uncover(ctx, path, false, log)
	return n + more, err
}

// errChanged says that another mount came to stand at a path meanwhile.
var errChanged = errors.New("another mount has come")

// isDead tells whether the process of the topmost mount at path is gone.
func isDead(ctx context.Context, path string) bool {
	fd, _, err := openMount(path)
	if err != nil {
		return false
	}
	return noProcess(sign(ctx, fd))
}

// detachDead takes the topmost mount off path when its process is dead, and
// returns what a statfs of it says when it is not: nil from one that is alive.
// It holds on to the mount that it asked, so that one that somebody makes at
// the same path meanwhile is safe.
//
//	open(path, O_PATH)
//	fstatfs                                ENOTCONN: its process is dead
//	umount2(/proc/self/fd/…, MNT_DETACH)   EINVAL: somebody else was faster
func detachDead(ctx context.Context, path string) (dead bool, err error) {
	fd, _, err := openMount(path)
	if err != nil {
		return false, err
	}
	held, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return false, err
	}
	defer unix.Close(held)
	if err := sign(ctx, fd); !noProcess(err) {
		return false, err
	}
	err = unix.Unmount(fmt.Sprintf("/proc/self/fd/%d", held), unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) {
		return false, errChanged
	}
	return true, err
}

// sign asks the process of a mount for a sign of life. It closes fd, which the
// question may hold for as long as that process is stopped.
func sign(ctx context.Context, fd int) error {
	return within(ctx, func() error {
		defer unix.Close(fd)
		var st unix.Statfs_t
		return unix.Fstatfs(fd, &st)
	})
}

// noProcess tells whether err is what a mount says whose process is gone.
func noProcess(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}
