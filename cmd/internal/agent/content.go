package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"dcfs/cache"
	"dcfs/cache/piece"
	"dcfs/fs/materialise"
	"dcfs/fs/tree"
)

// disk is where the release's content lies: staged files that become the copy,
// or a copy that stands already.
type disk interface {
	cache.Backing
	// Finish makes the copy stand under its final name, whole and durable.
	Finish(ctx context.Context) error
	Close() error
}

// openStage opens the staged files beside the destination, after a look at the
// room on the disk.
func (l *life) openStage() (disk, error) {
	if err := materialise.CheckSpace(l.cfg.Dest, l.rel.Tree); err != nil {
		return nil, err
	}
	stage, err := materialise.OpenStage(materialise.StageConfig{
		Dest: l.cfg.Dest, Tree: l.rel.Tree, InfoHash: l.rel.InfoHash, Log: l.log,
		Resumed: l.cfg.Resume != nil && l.cfg.Resume.Written != nil,
	})
	if err != nil {
		return nil, err
	}
	return staged{stage, l}, nil
}

// staged is a release that is being filled.
type staged struct {
	*materialise.Stage
	life *life
}

// WriteAt drops what comes after the release was finished: a piece that was
// lost then, because somebody damaged the copy, comes again for those who ask
// for it, but a finished release is never written to.
func (s staged) WriteAt(p []byte, off int64) (int, error) {
	n, err := s.Stage.WriteAt(p, off)
	if errors.Is(err, materialise.ErrSealed) && s.life.finished.Load() {
		return len(p), nil
	}
	if err == nil { // the store writes whole pieces
		s.life.written.note(s.life.rel.Layout.At(off), true)
	}
	return n, err
}

func (s staged) Finish(ctx context.Context) error {
	c := materialise.Completion{State: s.life.cfg.State, Version: s.life.rel.Name, Share: s.life.shareWith(s.Stage)}
	if s.life.inPlace {
		c.InPlace = func(exchange func() error) error {
			return s.life.server.Replace(materialise.Aside(s.Dest()), exchange)
		}
	}
	err := s.Stage.Finish(ctx, c)
	if lost := s.Losses(); err == nil && lost != (materialise.Losses{}) {
		s.life.log.Warn("not root: some metadata could not be kept",
			"owners", lost.Owners, "setuid", lost.SetIDs, "xattrs", lost.Xattrs)
	}
	s.life.finished.Store(err == nil)
	return err
}

// openCopy opens a copy that stands already, to be read and seeded.
func (l *life) openCopy() (disk, error) {
	if err := materialise.RemoveStage(l.cfg.Dest); err != nil {
		return nil, err
	}
	dest, err := materialise.OpenDest(l.cfg.Dest, l.rel.Tree)
	if err != nil {
		return nil, err
	}
	l.noteOwner()
	return standing{dest}, nil
}

// noteOwner says when a copy that stands already was given to somebody else
// than is asked for now: it is used as it is.
func (l *life) noteOwner() {
	var st unix.Stat_t
	top := l.rel.Tree.Entry(tree.Root)
	if os.Geteuid() != 0 || unix.Lstat(l.cfg.Dest, &st) != nil || st.Uid == top.UID && st.Gid == top.GID {
		return
	}
	l.log.Warn("the copy was made with another --owner; move it away to have it made anew", "dest", l.cfg.Dest,
		"owner", fmt.Sprintf("%d:%d", st.Uid, st.Gid), "wanted", fmt.Sprintf("%d:%d", top.UID, top.GID))
}

// standing is a release that is whole; there is nothing to finish or record.
type standing struct{ *materialise.Dest }

func (standing) Finish(context.Context) error { return nil }
func (standing) SaveHave([]byte) error        { return nil }

// openStore opens the piece store over the disk. What a former life left there
// is claimed, and hashed before its first use.
func (l *life) openStore() error {
	memory, err := cache.NewMemory(l.cfg.CacheBytes / 2)
	if err != nil {
		return err
	}
	l.openWritten()
	l.atStart = l.claimed()
	store, err := cache.New(cache.Config{
		Layout: l.rel.Layout, Hash: l.rel.Hash, Backing: l.disk, Memory: memory,
		Claimed: l.atStart, DirtyLimit: l.cfg.CacheBytes / 4, Ahead: aheadOf(l.rel.Layout),
		OnLost: l.onLost, Log: l.log,
	})
	if err != nil {
		memory.Close()
		return err
	}
	l.memory, l.store = memory, store
	return nil
}

// ahead is how many bytes behind what is read in order are fetched, four pieces
// at least: enough for the link never to wait for the reader.
const ahead = 8 << 20

func aheadOf(l piece.Layout) int64 { return max(4*l.Length, ahead) }

// openWritten takes over, or begins, the note of what is written, when there is
// somebody to leave it to.
func (l *life) openWritten() {
	n := l.rel.Layout.Count()
	var err error
	switch {
	case l.cfg.Resume != nil && l.cfg.Resume.Written != nil:
		l.written, err = findWritten(l.cfg.Resume.Written, n, l.log)
	case l.cfg.Hold != nil && l.cfg.Resume == nil && !l.whole:
		l.written, err = newWritten(n, l.log)
	}
	if err != nil {
		l.log.Warn("what is not durable will come again when this process dies", "cause", err)
	}
}

func (l *life) claimed() *piece.Set {
	n := l.rel.Layout.Count()
	set := piece.NewSet(n)
	if l.whole {
		for i := range piece.Index(n) {
			set.Add(i)
		}
		return set
	}
	if stage, ok := l.disk.(staged); ok {
		if have, ok := stage.LoadHave(); ok {
			if durable, ok := piece.SetFromBytes(have, n); ok {
				set = durable
			}
		}
	}
	if l.written != nil {
		for i := range l.written.pieces().All() {
			set.Add(i)
		}
	}
	if set.Len() == 0 {
		return nil
	}
	l.log.Info("resuming", "pieces", set.Len(), "of", n)
	return set
}

// onLost is told of pieces that were here and are not any more. They are
// fetched again.
func (l *life) onLost(i piece.Index, why error) {
	l.written.note(i, false)
	if !errors.Is(why, cache.ErrDamaged) {
		l.pausePrefetch()
	}
	if errors.Is(why, cache.ErrDamaged) {
		l.damaged.Store(true)
		what := "staged bytes are damaged and are fetched again; keep other programs away from the stage"
		if l.whole || l.finished.Load() {
			what = "the copy is damaged; see what differs and mend it with dcfs verify --repair"
		}
		l.log.Warn(what, "piece", i, "file", l.firstPath(i), "dest", l.cfg.Dest, "cause", why)
	}
	l.mu.Lock()
	ready := l.ready
	l.mu.Unlock()
	if ready {
		l.swarm.Lost(i)
	}
}

// closeContent makes what came durable, as far as the disk lets it, and closes.
func (l *life) closeContent() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	if !l.whole && !l.finished.Load() {
		if err := l.store.Flush(ctx); err != nil {
			l.log.Warn("some pieces did not reach the disk and will be fetched again", "cause", err)
		}
	}
	l.store.Close()
	l.memory.Close()
	l.written.close()
	if stage, ok := l.disk.(staged); ok {
		if err := stage.Clear(); err != nil {
			l.log.Warn("what stood at the mountpoint before is left beside it", "cause", err)
		}
	}
	if err := l.disk.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		l.log.Warn("closing the staged files", "cause", err)
	}
}
