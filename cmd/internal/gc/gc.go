// Package gc removes what a host no longer needs: old materialised releases,
// and what dead dcfs processes have left. fs/retain decides which releases may
// go; this package gathers what that decision needs, and carries it out.
//
// It must never remove a release that a symlink leads to, that is mounted, or
// that a process uses, nor anything that dcfs did not put there; follow a
// symlink while it deletes; or go on when it could not find out who uses what.
package gc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"dcfs/cmd/internal/control"
	"dcfs/fs/durable"
	"dcfs/fs/materialise"
	"dcfs/fs/retain"
)

// ErrBusy says that another gc runs on this host.
var ErrBusy = errors.New("another gc is running")

// Config says what to clean. All fields but DryRun and Log are needed.
type Config struct {
	Dir        string        // where the releases stand, at any depth
	Keep       int           // releases of each app
	StaleAfter time.Duration // before somebody's resumable download is given up
	State      string
	RunDir     string
	DryRun     bool
	Log        *slog.Logger // nil: no log

	// stale lists dead mounts of this host; for tests, which must not clean up
	// behind others. nil: fs.Stale.
	stale func(context.Context) (dead, covered []string, err error)
}

// What becomes of something.
const (
	Keep   = "keep"
	Remove = "remove"
)

// Outcome is what becomes of one thing and, unless it was a dry run, whether
// that was done.
type Outcome struct {
	Path    string   `json:"path"`
	Action  string   `json:"action"` // keep or remove
	Reasons []string `json:"reasons"`
	Done    bool     `json:"done"` // it was removed
	Error   string   `json:"error,omitempty"`
}

// Release is what becomes of a release, or of a directory that is none.
type Release struct {
	Outcome
	Version   string     `json:"version,omitempty"` // empty: no release of this host
	Infohash  string     `json:"infohash,omitempty"`
	Completed *time.Time `json:"completed,omitempty"`
}

// Leftover is what becomes of something that a dead process has left.
type Leftover struct {
	Outcome
	Kind string `json:"kind"` // mount, socket, removed, repair, stage, receipt, metainfo, file
}

// Report is all that was decided and done. Lists are never nil.
type Report struct {
	Releases  []Release
	Leftovers []Leftover
}

// collector is one run.
type collector struct {
	Config
	dir      string // Dir without symlinks
	receipts map[string]materialise.Receipt
	uses     *uses
	live     []control.Status
	sockets  []string // of dead processes
	out      Report
	failed   []error
}

// Run cleans the host. The report is complete also when some removals failed;
// the error then joins theirs. Other errors mean that nothing was removed.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &collector{Config: cfg, out: Report{Releases: []Release{}, Leftovers: []Leftover{}}}
	unlock, err := c.open()
	if err != nil {
		return c.out, err
	}
	defer unlock()
	if err := c.mounts(ctx); err != nil { // before who uses what: dead mounts hold nothing
		return c.out, err
	}
	decisions, err := c.decide(ctx)
	if err != nil {
		return c.out, err
	}
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return c.releases(ctx, decisions) },
		c.foreign, c.dead, c.leftovers, c.orphans, c.metainfo, c.unwritten,
	} {
		if err := step(ctx); err != nil {
			return c.out, err
		}
	}
	return c.out, errors.Join(c.failed...)
}

// open resolves the directory and sees to it that nobody else cleans.
func (c *collector) open() (unlock func(), err error) {
	if c.dir, err = filepath.EvalSymlinks(c.Dir); err == nil {
		c.dir, err = filepath.Abs(c.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("gc: %w", err)
	}
	if st, err := os.Stat(c.dir); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("gc: %s is no directory; name the one that holds the releases: %w", c.Dir, errors.Join(err, os.ErrNotExist))
	}
	if c.DryRun {
		return func() {}, nil
	}
	if err := (durable.Disk{}).MkdirAll(c.State, 0o755); err != nil {
		return nil, fmt.Errorf("gc: the state directory: %w", err)
	}
	lock, err := durable.Disk{}.Lock(filepath.Join(c.State, "gc.lock"))
	if errors.Is(err, durable.ErrHeld) {
		return nil, fmt.Errorf("%w: %w; wait for it to end", ErrBusy, err)
	}
	if err != nil {
		return nil, fmt.Errorf("gc: %w", err)
	}
	return func() { lock.Release() }, nil
}

// decide gathers the releases below the directory and who uses them.
func (c *collector) decide(ctx context.Context) ([]retain.Decision, error) {
	all, err := materialise.Receipts(c.State)
	if err != nil {
		return nil, fmt.Errorf("gc: the receipts: %w", err)
	}
	c.receipts = map[string]materialise.Receipt{}
	for _, r := range all {
		if r.Dest != c.dir && within(r.Dest, c.dir) && !isRepair(filepath.Base(r.Dest)) {
			c.receipts[r.Dest] = r
		}
	}
	if err := c.gather(ctx); err != nil {
		return nil, fmt.Errorf("gc: who uses what cannot be known, so nothing is removed: %w", err)
	}
	var releases []retain.Release
	for path, r := range c.receipts {
		releases = append(releases, retain.Release{
			Version: r.Version, Path: path, Completed: r.Completed,
			InUse: c.uses.of(path), Rollback: c.uses.rollback(path),
		})
	}
	return retain.Apply(releases, c.Keep), nil
}

// act removes something unless this is a dry run, and fills in what came of it.
// What somebody came to use meanwhile is kept, which is no failure.
func (c *collector) act(o *Outcome, remove func() error) {
	o.Action = Remove
	if c.DryRun {
		return
	}
	err := remove()
	switch {
	case err == nil:
		o.Done = true
		c.Log.Debug("removed", "path", o.Path, "why", o.Reasons)
	case errors.Is(err, errUsed) || errors.Is(err, materialise.ErrBusy):
		o.Action, o.Reasons = Keep, []string{err.Error()}
	default:
		o.Error = err.Error()
		c.failed = append(c.failed, err)
	}
}
