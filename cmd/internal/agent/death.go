package agent

import (
	"context"
	"errors"
	"syscall"
	"time"

	"dcfs/fs"
	"dcfs/fs/materialise"
)

const (
	// lastBreath is how long a process that was killed may take to be gone. When
	// the parent that keeps a mount is killed, the process that serves it dies a
	// moment later, and the same command may have been started again by then.
	lastBreath = 2 * time.Second
	breath     = 20 * time.Millisecond
)

// afterDeath calls do again for as long as it fails because of another process
// that may be just dying.
func afterDeath(ctx context.Context, do func() error) error {
	for deadline := time.Now().Add(lastBreath); ; sleep(ctx, breath) {
		err := do()
		if err == nil || !othersHave(err) || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
	}
}

// othersHave tells whether the mountpoint, the stage or a port is another's.
func othersHave(err error) bool {
	var live *fs.LiveError
	return errors.As(err, &live) || errors.Is(err, materialise.ErrBusy) || errors.Is(err, syscall.EADDRINUSE)
}
