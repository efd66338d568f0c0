package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"dcfs/cache"
	"dcfs/cmd/internal/agent"
	"dcfs/cmd/internal/catalog"
	"dcfs/cmd/internal/config"
	"dcfs/cmd/internal/control"
	"dcfs/cmd/internal/fleet"
	"dcfs/cmd/internal/gc"
	"dcfs/cmd/internal/holder"
	"dcfs/cmd/internal/origin"
	dcfs "dcfs/fs"
	"dcfs/fs/activate"
	"dcfs/fs/materialise"
	"dcfs/fs/prefetch"
	"dcfs/fs/release"
	"dcfs/fs/tree"
	"dcfs/swarm"
	"dcfs/swarm/gate"
	"dcfs/swarm/metainfo"
)

// Exit codes, from sysexits(3). Scripts read them: they are a contract.
const (
	exitOK          = 0
	exitUsage       = 64  // the command line is wrong
	exitData        = 65  // bad signature or bad data
	exitNoRelease   = 66  // unknown release
	exitUnavailable = 69  // nobody to fetch from before the deadline
	exitSoftware    = 70  // anything that is not in the table
	exitExists      = 73  // destination or version exists with other content
	exitDisk        = 74  // full, read-only or broken
	exitTemporary   = 75  // the same command may work later
	exitPermission  = 77  // FUSE or permission
	exitConfig      = 78  // configuration
	exitSignal      = 128 // plus the signal's number
)

// exitTable says which kind of error ends the program how. The first match
// wins: what a package says about its failure stands before the cause.
var exitTable = []struct {
	kind error
	code int
}{
	{errUsage, exitUsage},
	{catalog.ErrUsage, exitUsage},
	{fleet.ErrConfig, exitUsage},

	{config.ErrConfig, exitConfig},
	{agent.ErrConfig, exitConfig},
	{agent.ErrHTTP, exitConfig},
	{origin.ErrConfig, exitConfig},
	{origin.ErrListen, exitConfig},
	{swarm.ErrListen, exitConfig},
	{release.ErrKey, exitConfig},
	{gate.ErrIdentity, exitConfig},

	{release.ErrExists, exitExists},
	{catalog.ErrConflict, exitExists},
	{materialise.ErrForeign, exitExists},
	{activate.ErrIncomplete, exitExists},
	{activate.ErrNoHistory, exitExists},
	{activate.ErrNotLink, exitExists},
	{activate.ErrFenced, exitExists},

	{release.ErrUntrusted, exitData},
	{metainfo.ErrInvalid, exitData},
	{tree.ErrInvalid, exitData},
	{tree.ErrUnsupported, exitData},
	{prefetch.ErrTrace, exitData},
	{origin.ErrPayload, exitData},
	{catalog.ErrBadAnswer, exitData},
	{errDiffers, exitData},

	{dcfs.ErrUnavailable, exitPermission},
	{dcfs.ErrMountpoint, exitPermission},
	{catalog.ErrUnauthorized, exitPermission},

	{catalog.ErrUnknownRelease, exitNoRelease},
	{control.ErrNoFile, exitNoRelease},
	{errNoProcess, exitNoRelease},
	{control.ErrTooEarly, exitTemporary},
	{control.ErrGone, exitTemporary},
	{catalog.ErrUnreachable, exitUnavailable},
	{agent.ErrNoSource, exitUnavailable},
	{swarm.ErrNoMetadata, exitUnavailable},

	{materialise.ErrBusy, exitTemporary},
	{activate.ErrBusy, exitTemporary},
	{origin.ErrBusy, exitTemporary},
	{gc.ErrBusy, exitTemporary},
	{tree.ErrChanged, exitTemporary},
	{agent.ErrStopped, exitTemporary},
	{fleet.ErrFailed, exitTemporary},

	// What no package has given a name: the cause alone.
	{materialise.ErrSpace, exitDisk},
	{syscall.ENOSPC, exitDisk},
	{syscall.EDQUOT, exitDisk},
	{syscall.EIO, exitDisk},
	{syscall.EROFS, exitDisk},
	{cache.ErrDisk, exitDisk},
	{syscall.EADDRINUSE, exitConfig},
	{syscall.EADDRNOTAVAIL, exitConfig},
	{fs.ErrPermission, exitPermission},
	{context.DeadlineExceeded, exitTemporary},
	{os.ErrDeadlineExceeded, exitTemporary},
	{fs.ErrNotExist, exitNoRelease},  // sysexits' EX_NOINPUT: DIR, a key, a trace
	{syscall.ENOTDIR, exitNoRelease}, // a file in the place of DIR
}

// coder is an error that carries an exit code from another dcfs process.
type coder interface {
	error
	ExitCode() int
}

// exitCode is the one place where an error becomes an exit code.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	var c coder
	if errors.As(err, &c) && c.ExitCode() > 0 {
		return c.ExitCode()
	}
	for _, row := range exitTable {
		if errors.Is(err, row.kind) {
			return row.code
		}
	}
	return exitSoftware
}

// verdict is the exit code of a program whose context is ctx: an end that a
// signal asked for says which, as shells expect.
func verdict(ctx context.Context, err error) int {
	var sig signalled
	if err != nil && errors.As(context.Cause(ctx), &sig) {
		return sig.code()
	}
	return exitCode(err)
}

// report prints what went wrong and returns the exit code.
func report(ctx context.Context, stderr io.Writer, err error) int {
	if err != nil {
		complain(stderr, err)
	}
	return verdict(ctx, err)
}

// signalled is why a context was cancelled.
type signalled struct{ syscall.Signal }

func (s signalled) Error() string { return "ended by signal: " + s.Signal.String() }
func (s signalled) code() int     { return exitSignal + int(s.Signal) }

// signals returns a context that ends with the first SIGINT, SIGTERM or
// SIGHUP (the terminal went away), which asks for an orderly end. The second ends the process at once: everything on
// disk is written so that this is safe.
func signals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	ch, stopped := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		signal.Notify(ch, syscall.SIGHUP)
	}
	if holder.Held() {
		signal.Notify(ch, holder.End)
	}
	go func() {
		for asked := false; ; {
			select {
			case s := <-ch:
				sig := signalled{s.(syscall.Signal)}
				switch {
				case s == holder.End: // beside a signal of its own, this is no second one
					cancel(signalled{syscall.SIGTERM})
				case asked:
					os.Exit(sig.code())
				default:
					asked = true
					cancel(sig)
				}
			case <-stopped:
				return
			}
		}
	}()
	return ctx, func() { signal.Stop(ch); close(stopped); cancel(nil) }
}
