package fs

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"

	"golang.org/x/sys/unix"
)

// Replace lets do exchange the directory at the mountpoint for another, whose
// old path aside is. The kernel refuses that (EBUSY) to everybody who sees a
// mount on the directory, so do runs on a thread with a table of mounts of its
// own, in which ours is not. The mount goes with the directory that it is on:
// afterwards it is at aside, what is open stays open, and lookups at the
// mountpoint see what do put there. There is no instant between the two.
//
// The calls, on that thread: unshare(CLONE_NEWNS); mount("/", MS_REC|MS_PRIVATE);
// umount2(mountpoint, MNT_DETACH); those of do. Then the thread ends.
func (s *Server) Replace(aside string, do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.ended() || !s.attached() {
		return do()
	}
	fd, id, err := openMount(s.where)
	if err != nil {
		return fmt.Errorf("replace %s: %w", s.where, err)
	}
	unix.Close(fd)
	if id != s.mnt.id {
		return fmt.Errorf("replace: %w: something else is mounted over %s; unmount that first", ErrMountpoint, s.where)
	}
	result := make(chan error, 1)
	go offMount(s.where, do, result)
	if err := <-result; err != nil {
		return err
	}
	s.where = aside
	return nil
}

// offMount runs do on a thread that does not see the mount at path. The thread
// is never unlocked, so that it ends with this goroutine; the process's first
// thread cannot end, so it waits for another.
func offMount(path string, do func() error, result chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		defer runtime.UnlockOSThread()
		again := make(chan error, 1)
		go offMount(path, do, again)
		result <- <-again
		return
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		result <- fmt.Errorf("replace %s: unshare the mounts: %w", path, err)
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		result <- fmt.Errorf("replace %s: make the mounts private: %w", path, err)
		return
	}
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		result <- fmt.Errorf("replace %s: take the mount off for one thread: %w", path, err)
		return
	}
	result <- do()
}

// coverItself binds dest, which stands at the mountpoint since Replace,
// read-only on itself: the path is then as after any other handover.
func (s *Server) coverItself(dest string) error {
	at, err := unix.Open(dest, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("handover: open %s: %w", dest, err)
	}
	defer unix.Close(at)
	if _, err := s.cover(dest, at); err != nil {
		return fmt.Errorf("handover of %s: %w", dest, err)
	}
	return nil
}

// Free detaches the mounts that dead FUSE processes left at path. Any other
// mount there is an error, which wraps ErrMountpoint; no such path is none.
func Free(ctx context.Context, path string, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return free(ctx, path, log)
}
