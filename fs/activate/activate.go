// Package activate moves the symlink that says which release is current:
// atomically, durably, and with a memory of where it led before.
//
// It must never leave a moment at which the link does not resolve, point it at
// a release that the caller does not vouch for (unless forced), or replace
// something that is not a symlink.
package activate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"dcfs/fs/durable"
)

var (
	// ErrNotLink says that something other than a symlink stands at the link.
	ErrNotLink = errors.New("not a symlink")
	// ErrIncomplete says that the target is no complete release.
	ErrIncomplete = errors.New("not a complete release")
	// ErrNoHistory says that no previous target is known.
	ErrNoHistory = errors.New("no previous target")
	// ErrBusy says that another process moves the same link: try again.
	ErrBusy = errors.New("link is busy")
	// ErrFenced says that the order to move the link comes too late: a newer
	// one was carried out, or this one was taken back.
	ErrFenced = errors.New("overtaken by a newer order")
)

// Options say how to move a link.
type Options struct {
	State   string                    // the state directory, for the history
	Force   bool                      // take the target whatever Allowed says
	Allowed func(target string) error // nil error: target is a complete release or a live mount; required unless Force
	Epoch   int64                     // of the order to move it, see Swap; 0 for an order by hand
	Disk    durable.Disk              // for tests; the zero value is right
}

// Swap makes link a symlink to target and returns the target before it, which
// Rollback would go back to; "" when there is none. Activating the current
// target again changes nothing, also not the memory of the one before it. A
// missing parent of link is created, and target is made absolute.
//
// An order of a fleet has an epoch, a number that grows from order to order: a
// link does not follow an order that is older than one that it followed, or that
// was taken back. An order by hand is followed at any time, and ends what went
// on before: nothing of an order can be taken back after it.
//
// Errors wrap ErrNotLink, ErrIncomplete, ErrBusy or ErrFenced.
//
//	lock STATE/links/….lock
//	readlink(LINK)
//	write STATE/links/….json       durably
//	symlink, rename, fsync(PARENT)  durable.Dir.ReplaceSymlink
func Swap(link, target string, opt Options) (previous string, err error) {
	target, err = filepath.Abs(target)
	if err != nil {
		return "", fmt.Errorf("target %s: %w", target, err)
	}
	err = withLink(link, opt, func(l *pointer) error {
		if err := l.fence(); err != nil {
			return err
		}
		if err := l.allowed(target); err != nil {
			return err
		}
		previous, err = l.swap(target)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("activate %s: %w", link, err)
	}
	return previous, nil
}

// Rollback moves link back to where it led before, which must still be allowed
// (or forced), and returns where it leads now and where it led until now.
// Rolling back twice leads back to the start.
//
// Errors wrap ErrNoHistory, and those of Swap.
func Rollback(link string, opt Options) (now, was string, err error) {
	err = withLink(link, opt, func(l *pointer) error {
		now = l.previous()
		if now == "" {
			return fmt.Errorf("%w is recorded under %s; name one: dcfs activate %s TARGET", ErrNoHistory, opt.State, link)
		}
		if err := l.allowed(now); err != nil {
			return err
		}
		was = l.now
		return l.move(now, was)
	})
	if err != nil {
		return "", "", fmt.Errorf("roll back %s: %w", link, err)
	}
	return now, was, nil
}

// pointer is a link with its history, locked.
type pointer struct {
	opt  Options
	path string // absolute, symlinks in the parent resolved
	now  string // where it leads, absolute; "" when it is not there
	hist history
}

// withLink calls do with the link read and locked.
func withLink(link string, opt Options, do func(*pointer) error) error {
	path, err := opt.Disk.Resolve(link)
	if err != nil {
		return err
	}
	l := &pointer{opt: opt, path: path}
	file := historyPath(opt.State, l.path)
	if err := opt.Disk.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("its history: %w", err)
	}
	lock, err := opt.Disk.Lock(strings.TrimSuffix(file, ".json") + ".lock")
	if errors.Is(err, durable.ErrHeld) {
		return fmt.Errorf("%w: %w; try again", ErrBusy, err)
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	if l.now, err = readLink(l.path); err != nil {
		return err
	}
	if l.hist, err = readHistory(file); err != nil {
		return err
	}
	return do(l)
}

// readLink returns where the symlink path leads, as an absolute path of one
// step, and "" when there is nothing at path.
func readLink(path string) (string, error) {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if fi.Mode().Type() != fs.ModeSymlink {
		return "", fmt.Errorf("%w: %s is there as something else (%s); move it away or choose another link", ErrNotLink, path, fi.Mode())
	}
	to, err := os.Readlink(path)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(path), to)
	}
	return filepath.Clean(to), nil
}

// allowed asks the caller about target, and refuses what could never resolve.
func (l *pointer) allowed(target string) error {
	if target == l.path || strings.HasPrefix(target, l.path+"/") {
		return fmt.Errorf("%w: %s leads through the link itself", ErrIncomplete, target)
	}
	if l.opt.Force {
		return nil
	}
	if l.opt.Allowed == nil {
		return fmt.Errorf("%w: nobody vouches for %s", ErrIncomplete, target)
	}
	if err := l.opt.Allowed(target); err != nil {
		return fmt.Errorf("%w: %s: %w; fetch it first, or take it as it is with --force", ErrIncomplete, target, err)
	}
	return nil
}

func (l *pointer) swap(target string) (previous string, err error) {
	if target != l.now {
		return l.now, l.move(target, l.now)
	}
	previous = l.previous()
	if l.hist.Current == target && l.opt.Epoch == 0 {
		return previous, nil
	}
	// Somebody moved the link here by hand, or a crash kept us from moving it
	// away: from now on the history starts here.
	h := history{Current: target, Previous: previous}
	if l.hist.Current == target { // a new order for what is so already
		h.Older = l.hist.Older
	}
	return previous, l.remember(h)
}

// move records the swap durably and then makes it.
func (l *pointer) move(target, from string) error {
	if err := l.remember(history{Current: target, Previous: from, Older: l.previous()}); err != nil {
		return err
	}
	if err := l.opt.Disk.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
		return fmt.Errorf("its parent directory: %w", err)
	}
	return l.opt.Disk.ReplaceSymlink(target, l.path)
}
