package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"dcfs/cache/piece"
	"dcfs/cmd/internal/catalog"
	"dcfs/fs/durable"
	"dcfs/fs/prefetch"
	"dcfs/fs/tree"
)

// NoTrace as Config.Trace uses no trace, also where the origin has one.
const NoTrace = "none"

const (
	// traceWait bounds how long the origin's trace is waited for. It is fetched
	// beside everything else, and nothing waits for it.
	traceWait = 20 * time.Second
	// traceAhead is how many bytes of a trace are wanted at a time, in at most
	// tracePieces: what the library is given at once it fetches in the order of
	// the stream, and the plan forgets the oldest of too many.
	traceAhead  = 16 << 20
	tracePieces = piece.MaxAhead / 2
	tracePulse  = 50 * time.Millisecond
	// A recorded start counts as over when for traceQuiet nothing new was read,
	// or traceLong after its first read.
	traceQuiet = 5 * time.Second
	traceLong  = time.Minute
)

// readTrace reads the trace that --trace names, before anything is done.
func (l *life) readTrace() error {
	if l.cfg.Trace == "" || l.cfg.Trace == NoTrace {
		return nil
	}
	f, err := os.Open(l.cfg.Trace)
	if err != nil {
		return fmt.Errorf("--trace: %w", err)
	}
	defer f.Close()
	if l.hint, err = prefetch.Read(f); err != nil {
		return fmt.Errorf("--trace %s: %w", l.cfg.Trace, err)
	}
	return nil
}

// originClient is a client of whom the release came from.
func (l *life) originClient() *catalog.Client {
	return &catalog.Client{Origins: l.origins, Token: l.cfg.TraceToken, Identity: l.cfg.Gate.Identity}
}

// findTrace returns the trace to follow, nil for none. What an origin sends is
// a hint: it decides the order of what would be fetched all the same.
func (l *life) findTrace(ctx context.Context) *prefetch.Trace {
	if l.hint != nil || l.cfg.Trace == NoTrace || len(l.origins) == 0 {
		return l.hint
	}
	ctx, cancel := context.WithTimeout(ctx, traceWait)
	defer cancel()
	client := l.originClient()
	defer client.Close()
	raw, err := client.Trace(ctx, catalog.Version(l.rel.Name), prefetch.MaxBytes)
	if err != nil {
		l.log.Debug("the origin has no trace of the release", "cause", err)
		return nil
	}
	trace, err := prefetch.Parse(raw)
	if err != nil {
		l.log.Warn("the origin's trace cannot be used", "cause", err)
		return nil
	}
	return trace
}

// followTrace has what a trace names fetched before the rest, in its order,
// until all of it is here or ctx ends.
func (l *life) followTrace(ctx context.Context) {
	if l.whole || l.cfg.Mountpoint == "" || !l.awaitReuse(ctx) {
		return
	}
	trace := l.findTrace(ctx)
	if trace == nil {
		return
	}
	order, traced := prefetch.Plan(l.rel.Tree, l.rel.Layout, trace)
	l.log.Info("fetching what a trace names first", "pieces", traced, "of", len(order))
	left := order[:traced]
	if r := l.local.Load(); r != nil {
		left = without(left, r.Held())
	}
	tick := time.NewTicker(tracePulse)
	defer tick.Stop()
	for left = l.wantTraced(left); len(left) > 0; left = l.wantTraced(left) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	l.log.Info("all that the trace names is here", "pieces", traced)
}

// wantTraced asks for the first of the pieces that are not here, and returns
// them without those that are here at their head.
func (l *life) wantTraced(left []piece.Index) []piece.Index {
	for len(left) > 0 && l.store.Have(left[0]) {
		left = left[1:]
	}
	if l.paused.Load() {
		return left
	}
	most := min(tracePieces, max(1, traceAhead/l.rel.Layout.Length))
	for _, i := range left {
		if l.store.Have(i) {
			continue
		}
		l.swarm.Want(piece.Range{First: i, End: i + 1}, piece.Trace)
		if most--; most == 0 {
			break
		}
	}
	return left
}

func without(all []piece.Index, held *piece.Set) []piece.Index {
	var out []piece.Index
	for _, i := range all {
		if !held.Has(i) {
			out = append(out, i)
		}
	}
	return out
}

// awaitReuse waits until it is known what older releases on this host have. It
// reports false when ctx ended.
func (l *life) awaitReuse(ctx context.Context) bool {
	limit := time.Now().Add(planPatience)
	for l.reusing.Load() && l.local.Load() == nil && time.Now().Before(limit) && ctx.Err() == nil {
		sleep(ctx, tracePulse)
	}
	return ctx.Err() == nil
}

// startRecorder records first accesses when somebody wants them.
func (l *life) startRecorder() {
	if l.cfg.TraceOut != "" || l.cfg.TraceToken != "" {
		l.trace = prefetch.NewRecorder(l.rel.Tree, l.rel.Name)
	}
}

// record is the mount's trace hook.
func (l *life) record(file tree.ID, off int64, n int) {
	l.trace.Add(file, off, int64(n))
}

func (l *life) saveTrace() {
	if l.trace == nil || l.cfg.TraceOut == "" {
		return
	}
	raw := l.trace.Trace().Encode(prefetch.MaxBytes)
	if err := (durable.Disk{}).WriteFile(l.cfg.TraceOut, raw, 0o644); err != nil {
		l.log.Error("the trace could not be written", "file", l.cfg.TraceOut, "cause", err)
	}
}

// shareTrace gives the origin what was read first, once, when the application
// has started. An origin that does not want it is no error.
func (l *life) shareTrace(ctx context.Context) {
	if l.trace == nil || l.cfg.TraceToken == "" || len(l.origins) == 0 || !l.settled(ctx) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, traceWait)
	defer cancel()
	client := l.originClient()
	defer client.Close()
	taken, err := client.PutTrace(ctx, catalog.Version(l.rel.Name), l.trace.Trace().Encode(prefetch.MaxSharedBytes))
	switch {
	case errors.Is(err, catalog.ErrUnauthorized):
		l.log.Warn("the origin takes no trace of this host", "cause", err)
	case err != nil:
		l.log.Debug("the origin was not given the trace", "cause", err)
	case taken:
		l.log.Info("gave the origin a trace of what was read first")
	}
}

// settled waits until the start of the application is recorded; see traceQuiet.
// It reports false when ctx ended before.
func (l *life) settled(ctx context.Context) bool {
	var first, last time.Time
	for n := 0; ; sleep(ctx, time.Second) {
		if ctx.Err() != nil {
			return false
		}
		now, seen := time.Now(), l.trace.Len()
		if seen != n {
			if n == 0 {
				first = now
			}
			n, last = seen, now
		}
		if n > 0 && (now.Sub(last) >= traceQuiet || now.Sub(first) >= traceLong) {
			return true
		}
	}
}
