package gc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dcfs/fs/durable"
	"dcfs/fs/materialise"
	"dcfs/fs/retain"
)

// errUsed says that somebody came to use a release while it was being removed.
var errUsed = errors.New("somebody came to use it")

// releases carries the decisions out.
func (c *collector) releases(ctx context.Context, decisions []retain.Decision) error {
	for _, d := range decisions {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.out.Releases = append(c.out.Releases, c.release(ctx, d))
	}
	return nil
}

func (c *collector) release(ctx context.Context, d retain.Decision) Release {
	r := c.receipts[d.Path]
	completed := r.Completed
	out := Release{
		Outcome: Outcome{Path: d.Path, Action: Keep, Reasons: d.Reasons},
		Version: r.Version, Infohash: r.InfoHash, Completed: &completed,
	}
	if d.Keep {
		return out
	}
	// What no path tells: a file of it that is open, or runs, under another name.
	who, err := c.uses.inside(d.Path)
	if err != nil {
		out.Reasons = []string{"it cannot be looked through"}
		out.Error = err.Error()
		c.failed = append(c.failed, err)
		return out
	}
	if len(who) > 0 {
		out.Reasons = who
		return out
	}
	c.act(&out.Outcome, func() error {
		return materialise.Remove(durable.Disk{}, c.State, r, func(aside string) error { return c.stillUnused(ctx, r.Dest, aside) })
	})
	return out
}

// stillUnused looks once more, when the release is out of everybody's way.
func (c *collector) stillUnused(ctx context.Context, dest, aside string) error {
	if err := c.gather(ctx); err != nil {
		return err
	}
	if who := append(c.uses.of(dest), c.uses.of(aside)...); len(who) > 0 {
		return fmt.Errorf("%w: %s; run gc again when that has ended", errUsed, strings.Join(who, ", "))
	}
	return nil
}

// foreign names the directories that stay because they are no releases of this
// host: whoever cleans up wants to know what is not cleaned.
func (c *collector) foreign(context.Context) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("gc: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(c.dir, e.Name())
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") || c.holdsRelease(path) {
			continue
		}
		c.out.Releases = append(c.out.Releases, Release{Outcome: Outcome{
			Path: path, Action: Keep, Reasons: []string{"no receipt of this host says that it is a release"},
		}})
	}
	return nil
}

// holdsRelease tells whether path is, or was in this run, a release or a
// directory with releases below.
func (c *collector) holdsRelease(path string) bool {
	for dest := range c.receipts {
		if within(dest, path) {
			return true
		}
	}
	return false
}

// places lists the directories in which releases stand: the one that is cleaned
// and those between it and each release.
func (c *collector) places() []string {
	out := []string{c.dir}
	for dest := range c.receipts {
		for dir := filepath.Dir(dest); dir != c.dir && within(dir, c.dir); dir = filepath.Dir(dir) {
			if !slices.Contains(out, dir) {
				out = append(out, dir)
			}
		}
	}
	slices.Sort(out)
	return out
}

// within tells whether path is dir or lies below it. Both are absolute.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// isRepair tells whether name is that of a copy that `verify --repair` makes or
// has swapped out.
func isRepair(name string) bool {
	base, ok := strings.CutSuffix(name, ".repair")
	return ok && len(base) > 1 && base[0] == '.'
}
