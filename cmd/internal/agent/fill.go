package agent

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"dcfs/cache"
	"dcfs/cache/piece"
	"dcfs/cmd/internal/control"
	"dcfs/fs/materialise"
	"dcfs/fs/tree"
)

const (
	defaultDiskPatience = 60 * time.Second
	// diskRetry is how long a copy that the disk refused waits to be tried again.
	diskRetry = time.Second
	// maxRechecks is how often staged files are hashed again because somebody
	// else changes them all the time.
	maxRechecks = 10
)

// fill takes the release from mounted until the copy stands: every piece is
// here, on the disk, and under its final name. A disk that refuses is tried
// again for as long as DiskPatience, and what was damaged meanwhile is fetched
// again; reads are served all the time.
func (l *life) fill(ctx context.Context) error {
	var refused time.Time // since when the disk has refused the copy
	var rechecks int
	for entered := false; ; {
		if err := l.awaitComplete(ctx); err != nil {
			return err
		}
		if !entered {
			entered = true
			l.enter(control.Complete, nil)
		}
		err := l.materialise(ctx)
		switch again, damaged := l.damage(err); {
		case errors.Is(err, errIncomplete):
		case damaged && rechecks < maxRechecks:
			rechecks++
			l.log.Warn("staged files are hashed again", "pieces", again.Len(), "cause", err)
			l.store.Recheck(ctx, again)
		case !refuses(err):
			return l.orStopped(ctx, err)
		default:
			if refused.IsZero() {
				refused = time.Now()
				l.log.Error("the disk refuses the copy; trying again", "dest", l.cfg.Dest, "cause", err)
			}
			if time.Since(refused) > l.cfg.DiskPatience {
				return l.lostPatience(err)
			}
			sleep(ctx, diskRetry)
		}
	}
}

// errIncomplete says that a piece was lost after the release was complete.
var errIncomplete = errors.New("a piece was lost")

// materialise makes the real copy stand under its final name.
func (l *life) materialise(ctx context.Context) error {
	if l.whole {
		return l.checkStanding()
	}
	if err := l.store.Flush(ctx); err != nil {
		return err
	}
	select {
	case <-l.store.Complete():
		return l.disk.Finish(ctx)
	default:
		return errIncomplete
	}
}

// damage returns the pieces that have to be hashed again after an error of
// Finish, and whether there are any.
func (l *life) damage(err error) (*piece.Set, bool) {
	n := l.rel.Layout.Count()
	set := piece.NewSet(n)
	var changed *materialise.ChangedError
	switch {
	case errors.As(err, &changed):
		for _, id := range changed.Files {
			l.addPieces(set, id)
		}
	case errors.Is(err, materialise.ErrShort):
		for i := range piece.Index(n) {
			set.Add(i)
		}
	}
	return set, set.Len() > 0
}

func (l *life) addPieces(set *piece.Set, id tree.ID) {
	start, size := l.rel.Tree.Span(id)
	r := l.rel.Layout.Cover(start, size)
	for i := r.First; i < r.End; i++ {
		set.Add(i)
	}
}

// refuses reports whether an error is the disk's, which may recover.
func refuses(err error) bool {
	for _, kind := range []error{cache.ErrDisk, materialise.ErrSpace, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

func (l *life) lostPatience(err error) error {
	return fmt.Errorf("the disk has refused pieces for %s: %w; make room below %s, or mend the disk, and start again to resume",
		l.cfg.DiskPatience, err, l.cfg.Dest)
}
