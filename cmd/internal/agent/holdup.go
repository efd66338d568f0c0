package agent

import (
	"cmp"
	"slices"
	"time"

	"dcfs/cache/piece"
	"dcfs/cmd/internal/control"
)

// judgeEvery is how many beats lie between two judgements of what bounds the
// whole release.
const judgeEvery = 2

// holdup is what bounds the release now, and what has how long so far.
type holdup struct {
	bound *control.Bound
	spent map[string]time.Duration
	at    time.Time // until when it was counted
}

// judged adds the time since the last judgement to what bounded the release.
func (h *holdup) judged(b control.Bound, now time.Time) {
	if h.spent == nil {
		h.spent = make(map[string]time.Duration)
	}
	kind := b.Kind
	if kind == control.BoundNone && h.bound != nil {
		kind = h.bound.Kind // until now
	}
	if kind != control.BoundNone {
		h.spent[kind] += now.Sub(h.at)
	}
	h.at, h.bound = now, &b
	if b.Kind == control.BoundNone {
		h.bound = nil
	}
}

// held lists what bounded the release, longest first.
func (h *holdup) held() (out []control.Held) {
	for kind, d := range h.spent {
		out = append(out, control.Held{Kind: kind, MS: d.Milliseconds()})
	}
	slices.SortFunc(out, func(a, b control.Held) int {
		return cmp.Or(cmp.Compare(b.MS, a.MS), cmp.Compare(a.Kind, b.Kind))
	})
	return out
}

// judgeRelease says what bounds the release as a whole. It stops to look when
// all is here.
func (l *life) judgeRelease() {
	l.mu.Lock()
	done := l.holdup.at.After(l.readyAt) && l.holdup.bound == nil
	readyAt := l.readyAt
	l.mu.Unlock()
	stats, count := l.store.Stats(), l.rel.Layout.Count()
	have := stats.Pieces + stats.Claimed
	if done && have == count {
		return
	}
	b := control.Bound{Kind: control.BoundNone}
	if have < count {
		all := piece.Range{First: 0, End: piece.Index(count)}
		q := l.question(all)
		w := control.Why{PiecesTotal: count, PiecesHave: have, Links: q.holders(all)}
		b = judge(l.facts(q, all, readyAt, w))
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holdup.judged(b, now)
}

// sampled is how many of the missing pieces are looked at first.
const sampled = 512

// holders is publicLinks with 1 for every peer that has something of what is
// missing: it does not count a large release's pieces for each of many peers.
func (q *question) holders(r piece.Range) []control.Link {
	var missing []piece.Index
	for i := r.First; i < r.End; i++ {
		if !q.here(i) {
			missing = append(missing, i)
		}
	}
	out := q.publicLinks(piece.Range{})
	look := func(step int) (found bool) {
		for n := range out {
			for i := 0; i < len(missing) && out[n].Holds == 0; i += step {
				if q.links[n].Has(missing[i]) {
					out[n].Holds, found = 1, true
				}
			}
		}
		return found
	}
	if !look(max(1, len(missing)/sampled)) {
		look(1)
	}
	return out
}
