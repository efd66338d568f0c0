package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"dcfs/cmd/internal/catalog"
	"dcfs/cmd/internal/config"
	"dcfs/fs/activate"
	"dcfs/fs/materialise"
	"dcfs/fs/release"
)

type childError struct{ code int }

func (c childError) Error() string { return "child" }
func (c childError) ExitCode() int { return c.code }

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 70},
		{usage("x", "y"), 64},
		{catalog.ErrUsage, 64},
		{release.ErrUntrusted, 65},
		{catalog.ErrBadAnswer, 65},
		{errDiffers, 65},
		{catalog.ErrUnknownRelease, 66},
		{catalog.ErrUnreachable, 69},
		{catalog.ErrConflict, 73},
		{release.ErrExists, 73},
		{materialise.ErrForeign, 73},
		{activate.ErrIncomplete, 73},
		{activate.ErrNoHistory, 73},
		{activate.ErrNotLink, 73},
		{materialise.ErrSpace, 74},
		{syscall.ENOSPC, 74},
		{&os.PathError{Op: "write", Path: "/x", Err: syscall.EIO}, 74},
		{syscall.EROFS, 74},
		{context.DeadlineExceeded, 75},
		{materialise.ErrBusy, 75},
		{activate.ErrBusy, 75},
		{os.ErrPermission, 77},
		{syscall.EPERM, 77},
		{catalog.ErrUnauthorized, 77},
		{config.ErrConfig, 78},
		{release.ErrKey, 78},
		{syscall.EADDRINUSE, 78},
		{childError{73}, 73},
		{childError{0}, 70},
		// What a package says of its failure stands before the cause.
		{fmt.Errorf("%w: %w", catalog.ErrUnreachable, context.DeadlineExceeded), 69},
		{fmt.Errorf("%w: %w", release.ErrKey, os.ErrPermission), 78},
		{fmt.Errorf("deep: %w", fmt.Errorf("deeper: %w", syscall.ENOSPC)), 74},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestVerdictOfSignal(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(signalled{syscall.SIGTERM})
	if got := verdict(ctx, context.Canceled); got != 143 {
		t.Errorf("SIGTERM: %d, want 143", got)
	}
	if got := verdict(ctx, nil); got != 0 {
		t.Errorf("SIGTERM after the work was done: %d, want 0", got)
	}
}

func TestComplain(t *testing.T) {
	var w bytes.Buffer
	complain(&w, fmt.Errorf("fetch web-1: %w", hinted{errors.New("no origin"), "dcfs ls"}))
	if got, want := w.String(), "dcfs: fetch web-1: no origin\ntry: dcfs ls\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
