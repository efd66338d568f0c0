package fs

import (
	"context"
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// errnos is the one place where the reason of a failed READ becomes an errno.
// EIO is the only one that every reader of files expects; EINTR or EAGAIN would
// make some of them spin and others fail in ways nobody tests.
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	{ErrReadTimeout, syscall.EIO},
	{context.DeadlineExceeded, syscall.EIO},
	{ErrUnmounted, syscall.EIO},
	{context.Canceled, syscall.EIO},
}

func toStatus(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return fuse.Status(e.errno)
		}
	}
	return fuse.Status(syscall.EIO)
}
