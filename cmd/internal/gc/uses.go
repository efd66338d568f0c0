package gc

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/cmd/internal/control"
	"dcfs/fs/durable"
)

// askTimeout is how long a dcfs process may take to say what it serves.
const askTimeout = 2 * time.Second

// uses is who uses what on this host, at one moment.
type uses struct {
	links  []link
	mounts *mounts
	procs  *processes
	live   []control.Status
}

// gather finds out who uses what. An error means that it cannot be known.
func (c *collector) gather(ctx context.Context) error {
	u := &uses{}
	var errs []error
	u.live, c.sockets, errs = control.Look(ctx, c.RunDir, askTimeout)
	if len(errs) > 0 {
		return errs[0]
	}
	c.live = u.live
	var err error
	if u.links, err = findLinks(c.State, append(c.places(), filepath.Dir(c.dir))); err != nil {
		return fmt.Errorf("the symlinks: %w", err)
	}
	if u.mounts, err = readMounts(); err != nil {
		return fmt.Errorf("the mounts: %w", err)
	}
	if u.procs, err = readProcesses(); err != nil {
		return fmt.Errorf("the processes: %w", err)
	}
	c.uses = u
	return nil
}

// of says who uses the release at path, as far as paths tell.
func (u *uses) of(path string) (who []string) {
	for _, l := range u.links {
		switch {
		case anyWithin(l.targets, path):
			who = append(who, "the symlink "+l.path+" leads to it")
		case anyWithin(l.pending, path):
			who = append(who, "the symlink "+l.path+" is about to lead to it")
		}
	}
	who = append(who, u.mounts.of(path)...)
	for _, s := range u.live {
		if dest, err := durable.Resolve(s.Dest); s.Dest != "" && (err != nil || dest == path) {
			who = append(who, fmt.Sprintf("the dcfs process %d serves it (%s)", s.PID, s.State))
		}
	}
	return append(who, u.procs.at(path)...)
}

// rollback names the links that a rollback would lead to path.
func (u *uses) rollback(path string) (links []string) {
	for _, l := range u.links {
		if l.previous != "" && within(l.previous, path) {
			links = append(links, l.path)
		}
	}
	return links
}

// inside walks the release and says who uses a file of it by another path than
// its own, as through a mount that was detached. A file with several names may
// be used as that of another release, so only its path counts.
func (u *uses) inside(path string) (who []string, err error) {
	err = filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: p, Err: err}
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
		if proc, ok := u.procs.inodes[inode{st.Dev, st.Ino}]; ok {
			who = append(who, proc.uses(p))
			return filepath.SkipAll
		}
		return nil
	})
	return who, err
}
