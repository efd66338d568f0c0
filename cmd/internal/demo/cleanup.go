package demo

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// cleanUp ends what runs, unmounts what is mounted and removes what was
// written, in this order: nothing is removed below a mount.
func (s *story) cleanUp() error {
	var wg sync.WaitGroup
	for _, p := range s.procs {
		wg.Go(p.end)
	}
	wg.Wait()
	if err := s.unmountAll(); err != nil {
		return fmt.Errorf("demo: %w; %s is left as it is", err, s.dir)
	}
	if s.Keep {
		s.say("kept: %s", s.dir)
		return nil
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

// unmountAll takes away the mounts below the demo's directory, the latest
// first: a native copy may lie over a FUSE mount.
func (s *story) unmountAll() error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(s.dir))
	if err != nil {
		return fmt.Errorf("mounts: %w", err)
	}
	var errs []error
	for i := len(mounts) - 1; i >= 0; i-- {
		if err := unix.Unmount(mounts[i].Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", mounts[i].Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}
