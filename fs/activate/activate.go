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
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

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
// target again changes nothing, also not the memory of the one before it, but
// makes sure that the link is on the disk: after an error or a crash, at
// whichever call, the same Swap finishes the job. A missing parent of link is
// created, and target is made absolute.
//
// An order of a fleet has an epoch, a number that grows from order to order: a
// link does not follow an order that is older than one that it followed, or that
// was taken back. An order by hand is followed at any time, and ends what went
// on before: nothing of an order can be taken back after it.
//
// Errors wrap ErrNotLink, ErrIncomplete, ErrBusy or ErrFenced.
//
//	mkdir STATE/links; fsync(STATE)         when missing
//	open, flock STATE/links/….lock
//	lstat(LINK); readlink(LINK)
//	read STATE/links/….json
//	pwrite, fsync STATE/links/….json; fsync(STATE/links)  durable.Disk.WriteRecord
//	symlink, exchange LINK; fsync(PARENT)                 durable.Dir.ReplaceSymlink
//
// What LINK was before stays beside it as .LINK.swap: the way back takes no space.
// The history is on the disk before the link moves: a link that leads to the
// new target always has a way back. testdata/swap.golden has every call.
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
// Rolling back twice leads back to the start: after an error or a crash look
// where the link leads, and finish the job with Swap. It takes no space on the disk.
//
// Errors wrap ErrNoHistory, and those of Swap. The calls are those of Swap.
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
	if l.now, err = readLink(opt.Disk, l.path); err != nil {
		return err
	}
	if l.hist, err = readHistory(opt.Disk, file); err != nil {
		return err
	}
	return do(l)
}

// readLink returns where the symlink path leads, as an absolute path of one
// step, and "" when there is nothing at path.
func readLink(disk durable.Disk, path string) (string, error) {
	parent, err := disk.OpenDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer parent.Close()
	st, err := parent.Lstat(filepath.Base(path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", fmt.Errorf("%w: %s is there as something else (mode %o); move it away or choose another link", ErrNotLink, path, st.Mode)
	}
	to, err := parent.Readlink(filepath.Base(path))
	if err != nil {
		return "", err
	}
	return durable.Target(filepath.Dir(path), to), nil
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
	if l.hist.Current != target || l.opt.Epoch != 0 {
		// Somebody moved the link here by hand, or a crash kept us from moving
		// it away: from now on the history starts here.
		h := history{Current: target, Previous: previous}
		if l.hist.Current == target { // a new order for what is so already
			h.Older = l.hist.Older
		}
		if err := l.remember(h); err != nil {
			return "", err
		}
	}
	return previous, l.last()
}

// last makes the link last as it is: what moved it may not have come to that.
//
//	open(PARENT); fsync(PARENT)
func (l *pointer) last() error {
	parent, err := l.opt.Disk.OpenDir(filepath.Dir(l.path))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
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
