package activate

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// Fence is what a link knows of a fleet's orders to move it.
type Fence struct {
	Link   string // absolute
	Target string // where it leads; "" when it is not there
	Epoch  int64  // of the newest order that it knows; 0 for none
}

// Inspect returns where link leads and which orders it knows. It changes
// nothing. Errors wrap ErrNotLink or ErrBusy.
func Inspect(link string, opt Options) (f Fence, err error) {
	err = withLink(link, opt, func(l *pointer) error {
		f = Fence{Link: l.path, Target: l.now, Epoch: l.hist.Epoch}
		return nil
	})
	if err != nil {
		return f, fmt.Errorf("look at %s: %w", link, err)
	}
	return f, nil
}

// TakeBack undoes the order opt.Epoch: the link leads again where it led before
// it, or is removed when it was not there. From now on that order is refused,
// also where it never came, so that one that is still on its way cannot move the
// link later. It returns where the link leads now and where it led until now,
// which are the same when there was nothing to undo.
//
// The target before the order is not asked for its receipt: it was in use.
//
// Errors wrap ErrNotLink, ErrBusy, or ErrFenced after a newer order.
//
//	lock STATE/links/….lock
//	readlink(LINK)
//	write STATE/links/….json        durably, in its place
//	exchange, fsync(PARENT)         or unlink, fsync(PARENT)
//
// None of that takes space where Swap was before it: a full disk goes back, too.
func TakeBack(link string, opt Options) (now, was string, err error) {
	err = withLink(link, opt, func(l *pointer) error {
		now, was = l.now, l.now
		if l.hist.Epoch > opt.Epoch {
			return l.fenced()
		}
		h := l.hist
		undo := l.undoable()
		if undo {
			now = l.hist.From
			h = history{Current: now, Previous: was, Older: l.previous(), From: now}
		}
		h.Epoch, h.Closed = opt.Epoch, true
		if err := l.write(h); err != nil || !undo {
			return err
		}
		if now == "" {
			return l.remove()
		}
		return l.opt.Disk.ReplaceSymlink(now, l.path)
	})
	if err != nil {
		return "", "", fmt.Errorf("take back %s: %w", link, err)
	}
	return now, was, nil
}

// fence refuses an order that comes too late.
func (l *pointer) fence() error {
	e := l.opt.Epoch
	if e != 0 && (e < l.hist.Epoch || e == l.hist.Epoch && l.hist.Closed) {
		return l.fenced()
	}
	return nil
}

func (l *pointer) fenced() error {
	return fmt.Errorf("%w: this one has epoch %d, the link knows of %d; it leads to %s: look what the newer one did, and start again",
		ErrFenced, l.opt.Epoch, l.hist.Epoch, l.now)
}

// stamp writes into a new history which order it comes from.
func (l *pointer) stamp(h *history) {
	switch {
	case l.opt.Epoch == 0: // by hand
		h.Epoch, h.Closed = l.hist.Epoch, l.hist.Epoch != 0
	case l.opt.Epoch == l.hist.Epoch: // the same order once more
		h.Epoch, h.From = l.opt.Epoch, l.hist.From
	case h.Current == l.now && h.Current == l.hist.Current && !l.hist.Closed && l.hist.Epoch != 0:
		// A new order for what an older one did, which its sender may not have
		// lived to see: what that would go back to, this one goes back to.
		h.Epoch, h.From = l.opt.Epoch, l.hist.From
	default:
		h.Epoch, h.From = l.opt.Epoch, l.now
	}
}

// undoable says whether the link still leads where the order moved it.
func (l *pointer) undoable() bool {
	h := l.hist
	switch {
	case h.Epoch != l.opt.Epoch || l.now == h.From:
		return false
	case h.Closed: // taken back before, and a crash came before the link moved
		return h.Current == h.From && l.now == h.Previous
	}
	return l.now == h.Current
}

// remove takes the link away.
func (l *pointer) remove() error {
	dir, err := l.opt.Disk.OpenDir(filepath.Dir(l.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Remove(filepath.Base(l.path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return dir.Sync()
}
