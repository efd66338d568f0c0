package gc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/fs"
	"dcfs/fs/durable"
	"dcfs/fs/materialise"
)

// left decides about one leftover, and removes it when why says so.
func (c *collector) left(kind, path, action, why string, remove func() error) {
	l := Leftover{Kind: kind, Outcome: Outcome{Path: path, Action: action, Reasons: []string{why}}}
	if action == Remove {
		c.act(&l.Outcome, remove)
	}
	c.out.Leftovers = append(c.out.Leftovers, l)
}

// mounts detaches the mounts of dead dcfs processes.
func (c *collector) mounts(ctx context.Context) error {
	stale := c.stale
	if stale == nil {
		stale = fs.Stale
	}
	dead, covered, err := stale(ctx)
	if err != nil {
		return fmt.Errorf("gc: %w", err)
	}
	for _, path := range dead {
		c.left("mount", path, Remove, "its process is dead", func() error {
			_, err := fs.CleanStale(ctx, path, c.Log)
			return err
		})
	}
	for _, path := range covered {
		// Only a look below the copy tells. What a live process has there, it
		// takes away itself.
		served, err := c.served(ctx, path)
		if err != nil {
			return err
		}
		if served || c.DryRun {
			continue
		}
		n, err := fs.CleanStale(ctx, path, c.Log)
		if n > 0 || err != nil {
			c.left("mount", path, Remove, "its process is dead, below the copy", func() error { return err })
		}
	}
	return nil
}

// dead removes the sockets of dead processes, and directories in which one was
// killed while it made its socket.
func (c *collector) dead(context.Context) error {
	for _, path := range c.sockets {
		c.left("socket", path, Remove, "its process is dead", func() error { return ignoreGone(os.Remove(path)) })
	}
	unborn, err := filepath.Glob(filepath.Join(c.RunDir, ".sock-*"))
	if err != nil {
		return err
	}
	for _, path := range unborn {
		if st, err := os.Lstat(path); err == nil && st.IsDir() && time.Since(st.ModTime()) > min(time.Minute, c.StaleAfter) {
			c.left("socket", path, Remove, "its process died before it was ready", func() error { return durable.Disk{}.RemoveAll(path) })
		}
	}
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// leftovers looks for what stands hidden beside the releases.
func (c *collector) leftovers(ctx context.Context) error {
	for _, dir := range c.places() {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("gc: %w", err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			switch {
			case !e.IsDir():
			case materialise.IsRemoved(e.Name()):
				c.left("removed", path, Remove, "a gc that ended early has left it",
					func() error { return materialise.RemoveRemoved(durable.Disk{}, path) })
			case isRepair(e.Name()):
				c.repair(path)
			}
		}
		if err := c.stages(dir); err != nil {
			return err
		}
	}
	return nil
}

// repair decides about a copy that `verify --repair` has left: before the swap
// it is whole and the next repair takes it, afterwards it is the damaged one.
func (c *collector) repair(path string) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return
	}
	since := time.Since(time.Unix(st.Ctim.Sec, st.Ctim.Nsec)) // a rename counts
	who := c.uses.of(path)
	if inside, err := c.uses.inside(path); err != nil || len(inside) > 0 {
		who = append(who, "somebody uses it")
	}
	switch {
	case len(who) > 0:
		c.left("repair", path, Keep, strings.Join(who, ", "), nil)
	case since < c.StaleAfter:
		c.left("repair", path, Keep, c.young("verify --repair may go on with it", since), nil)
	default:
		c.left("repair", path, Remove, c.old("a repair that ended early has left it", since), func() error {
			if err := materialise.RemoveReceipt(c.State, path); err != nil {
				return err
			}
			return durable.Disk{}.RemoveAll(path)
		})
	}
}

// stages decides about downloads that have not come to their end.
func (c *collector) stages(dir string) error {
	all, err := materialise.Leftovers(dir)
	if err != nil {
		return fmt.Errorf("gc: %w", err)
	}
	for _, s := range all {
		since := time.Since(s.Touched)
		_, whole, err := materialise.Lookup(c.State, s.Dest)
		switch {
		case err != nil:
			c.left("stage", s.Path, Keep, err.Error(), nil)
		case whole:
			c.stage(s, "the release stands whole at "+s.Dest)
		case since < c.StaleAfter:
			c.left("stage", s.Path, Keep, c.young("the same fetch or mount resumes it", since), nil)
		default:
			c.stage(s, c.old("nobody has resumed it", since))
		}
	}
	return nil
}

// stage removes a stage unless a process fills it.
func (c *collector) stage(s materialise.Leftover, why string) {
	if holder := c.uses.procs.at(s.Path); len(holder) > 0 {
		c.left("stage", s.Path, Keep, strings.Join(holder, ", "), nil)
		return
	}
	c.left("stage", s.Path, Remove, why, func() error { return materialise.RemoveStage(s.Dest) })
}

func (c *collector) young(what string, since time.Duration) string {
	return fmt.Sprintf("%s; left %s ago, it goes after %s (--stale-after)", what, since.Round(time.Second), c.StaleAfter)
}

func (c *collector) old(what string, since time.Duration) string {
	return fmt.Sprintf("%s for %s, more than %s (--stale-after)", what, since.Round(time.Second), c.StaleAfter)
}
