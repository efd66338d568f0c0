package agent

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dcfs/cache/piece"
	"dcfs/fs/durable"
	"dcfs/fs/materialise"
	"dcfs/fs/reuse"
	"dcfs/fs/tree"
	"dcfs/swarm/metainfo"
)

// planPatience is how long the background prefetch waits to be told what this
// host has already. Reads wait for none of this.
const planPatience = 3 * time.Second

// startReuse has everything prefetched that older releases on this host do not
// have, and takes the rest from them in the background. The function that it
// returns ends that.
func (l *life) startReuse(ctx context.Context) (stop func()) {
	var sources []reuse.Source
	if !l.whole {
		sources = l.reuseSources()
	}
	if len(sources) == 0 {
		l.prefetchAll()
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	l.reusing.Store(true)
	go func() { // ends with ctx, but for a filesystem that hangs
		defer close(done)
		defer l.reusing.Store(false)
		l.reuse(ctx, sources)
	}()
	return func() {
		cancel()
		select {
		case <-done:
		case <-time.After(goodbye):
			l.log.Warn("an older release could not be closed: does its filesystem hang?")
		}
	}
}

func (l *life) prefetchAll() { l.prefetch(l.everything()) }

// prefetch has pieces fetched in the background, where that is wanted.
func (l *life) prefetch(r piece.Range) {
	if !l.cfg.Lazy {
		l.swarm.Prefetch(r, piece.Background)
	}
}

func (l *life) everything() piece.Range {
	return piece.Range{End: piece.Index(l.rel.Layout.Count())}
}

// pausePrefetch has only what is read fetched while the disk refuses: what
// nobody waits for could not be kept, and would be fetched over and over.
// resumePrefetch ends that.
func (l *life) pausePrefetch() {
	l.mu.Lock()
	ready := l.ready
	l.mu.Unlock()
	if ready && l.paused.CompareAndSwap(false, true) {
		l.log.Warn("the disk refuses and memory is short: only what is read is fetched until it recovers")
		l.swarm.Prefetch(l.everything(), piece.None)
	}
}

func (l *life) resumePrefetch() {
	if l.paused.CompareAndSwap(true, false) {
		l.prefetchAll()
	}
}

// reuse prefetches what the sources do not have, and gets the rest from them.
func (l *life) reuse(ctx context.Context, sources []reuse.Source) {
	late := time.AfterFunc(planPatience, l.prefetchAll)
	cfg := reuse.Config{
		Tree: l.rel.Tree, Layout: l.rel.Layout, Hash: l.rel.Hash, Store: l.store,
		Sources: sources, NoClone: materialise.ErrNoClone, Decided: l.decided, Log: l.log,
	}
	if stage, ok := l.disk.(staged); ok {
		cfg.Clone = func(id tree.ID, src *os.File) error { return stage.Clone(id, src) }
	}
	r := reuse.New(ctx, cfg)
	defer r.Close()
	late.Stop()
	held := r.Held()
	for i := range piece.Index(l.rel.Layout.Count()) {
		if !held.Has(i) {
			l.prefetch(piece.Range{First: i, End: i + 1})
		}
	}
	l.local.Store(r)
	s, err := r.Run(ctx)
	if err != nil && ctx.Err() == nil {
		l.log.Warn("older releases were reused in part only", "cause", err)
	}
	l.log.Info("reused what this host has already", "bytes", s.Bytes, "pieces", s.Pieces,
		"of", l.rel.Layout.Count(), "cloned", s.Cloned, "moved", s.Moved, "scanned", s.Scanned,
		"took", s.Took.Round(time.Millisecond))
}

// decided lets a piece that was held back go: peers are told that it is here,
// or it is fetched from them after all, now or when the disk loses it.
func (l *life) decided(i piece.Index) {
	if l.store.Have(i) {
		l.swarm.Lost(i) // it asks the store anew, whichever way that changed
	}
	l.prefetch(piece.Range{First: i, End: i + 1})
}

// reuseSources lists the directories of --reuse and then the complete releases
// of this host, the newest first.
func (l *life) reuseSources() []reuse.Source {
	var out []reuse.Source
	seen := map[string]bool{}
	add := func(dir, infoHash string) {
		path, err := filepath.EvalSymlinks(dir)
		if err != nil {
			l.log.Warn("a directory cannot be reused", "dir", dir, "cause", err)
			return
		}
		if seen[path] {
			return
		}
		seen[path] = true
		if l.overlapsMount(path) {
			l.log.Warn("a directory is not reused: it and the mountpoint lie in one another", "dir", dir)
			return
		}
		s := reuse.Source{Dir: path}
		if infoHash != "" {
			s.Load = func() (reuse.Known, error) { return loadKnown(l.cfg.State, infoHash) }
		}
		out = append(out, s)
	}
	for _, dir := range l.cfg.Reuse {
		receipt, _, _ := materialise.Lookup(l.cfg.State, dir) // a hint; none is fine
		add(dir, receipt.InfoHash)
	}
	receipts, err := materialise.Receipts(l.cfg.State)
	if err != nil {
		l.log.Warn("the older releases on this host are not known", "cause", err)
	}
	for _, r := range receipts {
		add(r.Dest, r.InfoHash)
	}
	return out
}

// overlapsMount tells whether looking into dir could lead into the mount that
// this process serves.
func (l *life) overlapsMount(dir string) bool {
	if l.cfg.Mountpoint == "" {
		return false
	}
	at, err := durable.Resolve(l.cfg.Mountpoint)
	return err != nil || within(at, dir) || within(dir, at)
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// loadKnown reads what this host kept of a release. Nobody checks its
// signature again: what is reused on its word is hashed.
func loadKnown(state, infoHash string) (reuse.Known, error) {
	if b, err := hex.DecodeString(infoHash); err != nil || len(b) != 20 {
		return reuse.Known{}, fmt.Errorf("%q is no infohash", infoHash)
	}
	f, err := os.Open(filepath.Join(state, "metainfo", infoHash+".torrent"))
	if err != nil {
		return reuse.Known{}, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, metainfo.MaxSize+1))
	if err != nil {
		return reuse.Known{}, err
	}
	m, err := metainfo.Parse(raw)
	if err != nil {
		return reuse.Known{}, err
	}
	return reuse.Known{Tree: m.Tree, Layout: m.Layout, Hash: m.Pieces.Hash}, nil
}
