// Package fs serves a tree.Tree as a read-only FUSE filesystem, and is the only
// package that meets go-fuse.
//
// The kernel caches everything for ever, since nothing of a release changes
// under a mount: what was read once sends no request again. Content comes
// through one seam, Content, which may block until the bytes are here.
//
// The package must never touch a path below its own mount (the Go scheduler
// can deadlock on it), never show a mount that nobody serves, never return
// fewer bytes than a file has, and never keep a reader longer than ReadTimeout.
package fs

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"dcfs/fs/tree"
)

var (
	// ErrUnavailable is wrapped when this process cannot mount at all: no
	// /dev/fuse, no CAP_SYS_ADMIN, or a kernel before 5.12.
	ErrUnavailable = errors.New("FUSE is not available")
	// ErrMountpoint is wrapped when the mountpoint cannot be used: missing,
	// not a directory, not empty, or mounted on.
	ErrMountpoint = errors.New("unusable mountpoint")
	// ErrReadTimeout is the cause of a READ's context that ran out of time.
	ErrReadTimeout = errors.New("the content did not arrive in time")
	// ErrUnmounted is the cause of a READ's context when the mount ended.
	ErrUnmounted = errors.New("the filesystem was unmounted")
)

// Content gives the bytes of the payload stream. ReadAt fills p from stream
// offset off, and blocks until the bytes are verified or ctx ends; it returns
// len(p) bytes or an error. It is called concurrently.
type Content interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
}

// Defaults of Config.
const (
	DefaultReadTimeout = 30 * time.Second
	// DefaultReadAhead is in KiB. It is also what the kernel asks for around each
	// page fault, and it waits for all of a READ: to read ahead of streams is for
	// the content to do.
	DefaultReadAhead = 512
)

// Config says what to mount, and where. Tree, Content and Place are needed.
type Config struct {
	Tree    *tree.Tree
	Content Content
	Place   Place // from Prepare

	FSName  string // the source in mountinfo; "dcfs:" + Version when empty
	Version string // the release's name

	ReadTimeout time.Duration // of one READ, then EIO; DefaultReadTimeout when 0
	ReadAhead   int           // read_ahead_kb of the mount, in KiB; DefaultReadAhead when 0
	NoSUID      bool          // setuid bits and file capabilities have no effect

	// Resident returns how many of the n bytes of the stream from off are on
	// this host, for st_blocks. nil counts everything as present. With it, the
	// attributes of a file are cached for only a second until it is whole.
	Resident func(off, n int64) int64
	// OnRead is told of every READ before it is served; it must be cheap. It
	// sees the kernel's readahead as well as what programs asked for.
	OnRead func(file tree.ID, off int64, n int)

	Log *slog.Logger // nil discards
}

func (c *Config) setDefaults() {
	if c.FSName == "" {
		c.FSName = "dcfs:" + c.Version
	}
	if c.ReadTimeout <= 0 {
		c.ReadTimeout = DefaultReadTimeout
	}
	if c.ReadAhead <= 0 {
		c.ReadAhead = DefaultReadAhead
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}
