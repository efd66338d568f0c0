package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"dcfs/fs/tree"
)

// Read fills go-fuse's own buffer from the content. It returns all that was
// asked for up to the end of the file, or an error: the kernel would take a
// short answer for the end of the file and cache zeros behind it.
func (r *raw) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	id, ok := r.entry(in.NodeId)
	if !ok || r.tree.Kind(id) != tree.File {
		return nil, fuse.EINVAL
	}
	start, size := r.tree.Span(id)
	off := int64(in.Offset)
	if off < 0 || off >= size || len(buf) == 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	p := buf[:min(int64(len(buf)), size-off)]
	if r.cfg.OnRead != nil {
		r.cfg.OnRead(id, off, len(p))
	}
	began, timeout := time.Now(), r.cfg.ReadTimeout
	again := r.late.again(id, off, int64(len(p)), began)
	if again {
		timeout = 0
	}
	if err := r.fill(cancel, p, start+off, timeout); err != nil {
		if errors.Is(err, ErrReadTimeout) && !again {
			r.late.note(id, off, int64(len(p)), time.Now())
		}
		if !again {
			r.complain(id, off, len(p), began, err)
		}
		return nil, toStatus(err)
	}
	return fuse.ReadResultData(p), fuse.OK
}

// complain writes the one log line of a READ that failed. What the content has
// to say of the wait stands beside it, by its names.
func (r *raw) complain(id tree.ID, off int64, n int, began time.Time, err error) {
	attrs := []any{"file", r.tree.Path(id), "offset", off, "length", n,
		"age", time.Since(began).Round(time.Millisecond)}
	var wait slog.LogValuer
	if errors.As(err, &wait) {
		attrs = append(attrs, "", wait) // the empty key: its parts stand beside the others
	}
	r.log.Error("read failed", append(attrs, "cause", err.Error())...)
}

// fill reads p from the stream within the deadline. The kernel cannot take a
// buffered READ back, so the deadline is the only end of a wait for bytes that
// never come; cancel closes when the mount ends.
func (r *raw) fill(cancel <-chan struct{}, p []byte, off int64, timeout time.Duration) error {
	ctx, stop := context.WithCancelCause(r.ctx)
	defer stop(nil)
	ctx, stopTimer := context.WithTimeoutCause(ctx, timeout, ErrReadTimeout)
	defer stopTimer()
	go func() {
		select {
		case <-cancel:
			stop(ErrUnmounted)
		case <-ctx.Done():
		}
	}()
	n, err := r.cfg.Content.ReadAt(ctx, p, off)
	if n == len(p) && (err == nil || errors.Is(err, io.EOF)) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%d bytes of %d: %w", n, len(p), io.ErrUnexpectedEOF)
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return err
}
