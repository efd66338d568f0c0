package activate

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
)

// IsLiveMount reports whether a dcfs mount stands uppermost at path and its
// process answers before ctx ends. A mount whose process is dead, and one that
// has been handed over to the real directory, are none.
//
// A process must not ask about a mount that it serves itself.
func IsLiveMount(ctx context.Context, path string) (bool, error) {
	abs, err := durable.Resolve(path) // not the mount itself: a stat of it may hang
	if err != nil {
		return false, fmt.Errorf("mount %s: %w", path, err)
	}
	top := ""
	_, err = mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		if m.Mountpoint == abs {
			top = m.FSType // a later line lies above an earlier one
		}
		return true, false
	})
	if err != nil {
		return false, fmt.Errorf("mount %s: %w", path, err)
	}
	if top != "fuse.dcfs" && !strings.HasPrefix(top, "fuse.dcfs.") {
		return false, nil
	}
	return answers(ctx, abs), nil
}

// answers asks the mount for its statfs. The call cannot be interrupted: its
// goroutine ends when the mount's process answers or dies, or, on a mount that
// does neither, with this process.
func answers(ctx context.Context, path string) bool {
	done := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		done <- unix.Statfs(path, &st)
	}()
	select {
	case err := <-done:
		return err == nil
	case <-ctx.Done():
		return false
	}
}
