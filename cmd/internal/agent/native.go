package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/cmd/internal/control"
	"dcfs/fs"
	"dcfs/fs/durable"
	"dcfs/fs/materialise"
)

// native is a mountpoint that shows the copy of a release already, as an
// earlier life has left it with its handover.
type native struct {
	covered *fs.CoveredError
	copy    materialise.Receipt
	lived   bool // this life has come to its linger
}

// acceptNative takes a mountpoint that fs.Prepare refused for what is mounted
// there, if that is a complete copy of some release. useNative decides when it
// is known of which it should be.
func (l *life) acceptNative(err error) error {
	var covered *fs.CoveredError
	if !errors.As(err, &covered) {
		return err
	}
	receipt, ok, ferr := materialise.Find(l.cfg.State, covered.Path)
	if ferr != nil || !ok {
		return err
	}
	l.native = &native{covered: covered, copy: receipt}
	return nil
}

// useNative stands for mounting when the path shows the very copy that this
// life is to make: the same command again is a success, as deployments need it.
// What a process that was killed left below the copy is taken away.
func (l *life) useNative(ctx context.Context) error {
	dest, err := durable.Resolve(l.cfg.Dest)
	if err != nil {
		return err
	}
	r := l.native.copy
	switch {
	case r.InfoHash != hex.EncodeToString(l.rel.InfoHash[:]):
		return fmt.Errorf("%w; it is the copy of another release, %s", l.native.covered, r.Version)
	case !l.whole || r.Dest != dest:
		return fmt.Errorf("%w; or use the copy that it shows: --dest %s", l.native.covered, r.Dest)
	}
	l.log.Info("the path shows the copy already", "mountpoint", l.native.covered.Path, "dest", r.Dest)
	if _, err := fs.Uncover(ctx, l.native.covered.Path, false, l.log); err != nil {
		l.log.Warn("cannot clean up below the copy", "cause", err)
	}
	l.enter(control.Mounted, nil)
	return nil
}

// leaveNative takes the mounted copy away when that is how the life shall end,
// and the life has come to its end.
func (l *life) leaveNative() {
	if l.cfg.AtEnd != AtEndUnmount || !l.native.lived {
		return
	}
	path := l.native.covered.Path
	deadline := time.Now().Add(goodbye)
	for {
		flags := unix.UMOUNT_NOFOLLOW
		if time.Now().After(deadline) {
			flags |= unix.MNT_DETACH
		}
		err := unix.Unmount(path, flags)
		if errors.Is(err, unix.EBUSY) && flags&unix.MNT_DETACH == 0 {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if err != nil {
			l.log.Error("the mount could not be taken away", "mountpoint", path, "cause", err)
		}
		return
	}
}
