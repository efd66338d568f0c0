package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"dcfs/cache"
	"dcfs/cache/piece"
	"dcfs/cmd/internal/control"
	"dcfs/fs/tree"
	"dcfs/swarm"
)

var _ control.Explainer = (*life)(nil)

// Why tells what a file of the release waits for (control.Explainer). It asks
// the tree, the store and the swarm, and never the mount.
func (l *life) Why(path string) (control.Why, error) {
	l.mu.Lock()
	w := control.Why{PID: l.cfg.PID, State: l.state, Path: path}
	rel, ready, readyAt := l.rel, l.ready, l.readyAt
	l.mu.Unlock()
	if rel == nil {
		return w, fmt.Errorf("%w: the process is %s", control.ErrTooEarly, w.State)
	}
	w.Version = rel.Name
	id, err := findFile(rel.Tree, path)
	if err != nil {
		return w, err
	}
	w.Path = rel.Tree.Path(id)
	off, size := rel.Tree.Span(id)
	r := rel.Layout.Cover(off, size)
	w.Bytes, w.PieceLength, w.PiecesTotal = size, rel.Layout.Length, r.Len()

	if !ready {
		w.Bound = judge(facts{missing: w.PiecesTotal})
		return w, nil
	}
	q := l.question(r)
	pieces := make([]control.Piece, 0, r.Len())
	for i := r.First; i < r.End; i++ {
		p := q.piece(i)
		w.Readers += p.Readers
		if q.here(i) {
			w.PiecesHave++
		}
		pieces = append(pieces, p)
	}
	w.Pieces, w.LeftOut = selectPieces(pieces)
	w.Links = q.publicLinks(r)
	w.Bound = judge(l.facts(q, r, readyAt, w))
	return w, nil
}

// findFile finds a file of the tree, and says what else is there instead.
func findFile(t *tree.Tree, path string) (tree.ID, error) {
	id, ok := t.Find(path)
	if !ok {
		return 0, fmt.Errorf("%w: %q", control.ErrNoFile, path)
	}
	switch e := t.Entry(id); e.Kind {
	case tree.Dir:
		return 0, fmt.Errorf("%w: %q is a directory; name a file in it", control.ErrNoFile, path)
	case tree.Symlink:
		return 0, fmt.Errorf("%w: %q is a symlink to %q; name that", control.ErrNoFile, path, e.Target)
	}
	return id, nil
}

// question is what the store and the swarm say at one moment.
type question struct {
	now      time.Time
	life     *life
	verified *piece.Set
	waits    map[piece.Index]cache.Waiting
	links    []swarm.Link
}

func (l *life) question(r piece.Range) *question {
	q := &question{now: time.Now(), life: l, verified: l.store.Verified(), waits: make(map[piece.Index]cache.Waiting)}
	for _, w := range l.store.Waits() {
		if w.Piece >= r.First && w.Piece < r.End {
			q.waits[w.Piece] = w
		}
	}
	q.links = l.swarm.Links()
	return q
}

func (q *question) here(i piece.Index) bool { return q.verified.Has(i) || q.life.store.Have(i) }

// piece tells of one piece.
func (q *question) piece(i piece.Index) control.Piece {
	p := control.Piece{Piece: int(i), State: "absent", From: q.life.swarm.From(i)}
	if w, ok := q.waits[i]; ok {
		p.Readers, p.Since, p.AgeMS = w.Readers, &w.Since, q.now.Sub(w.Since).Milliseconds()
	}
	switch {
	case q.verified.Has(i):
		p.State = "verified"
		if len(p.From) == 0 {
			p.From = []string{q.life.localSource(i)}
		}
		return p
	case q.life.store.Have(i):
		p.State, p.From = "claimed", []string{"disk"}
		return p
	case len(p.From) > 0:
		p.State = "arriving"
	}
	for n := range q.links {
		link := &q.links[n]
		if link.Has(i) {
			p.Holders = append(p.Holders, link.Addr)
		}
		if since, ok := link.AskedFor(i); ok {
			p.Asked = append(p.Asked, control.Asked{Addr: link.Addr, Since: since, AgeMS: q.now.Sub(since).Milliseconds()})
		}
	}
	return p
}

// localSource is where a piece comes from that no peer sent.
func (l *life) localSource(i piece.Index) string {
	if l.atStart != nil && l.atStart.Has(i) {
		return "disk"
	}
	return "reuse"
}

// publicLinks describes the peers by what they have of the missing pieces.
func (q *question) publicLinks(r piece.Range) []control.Link {
	var out []control.Link
	for n := range q.links {
		link := &q.links[n]
		c := control.Link{
			Addr: link.Addr, Client: link.Client, Origin: link.Origin, Choking: !link.Choking.IsZero(),
			Asked: link.Asked, Since: moment(link.Since), Sent: moment(link.Sent),
		}
		for i := r.First; i < r.End; i++ {
			if link.Has(i) && !q.here(i) {
				c.Holds++
			}
		}
		out = append(out, c)
	}
	return out
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// facts gathers what judge decides on.
func (l *life) facts(q *question, r piece.Range, readyAt time.Time, w control.Why) facts {
	f := facts{
		now: q.now, missing: r.Len() - w.PiecesHave, joined: true, joinedAt: readyAt, dest: l.cfg.Dest,
		links: w.Links, known: l.swarm.Stats().Known, trackers: l.swarm.Trouble().Trackers,
		downCap: l.cfg.DownRate, trend: l.pulse.trend(), web: l.swarm.Sources().WebLast,
	}
	f.disk, f.diskBad = l.store.DiskError()
	return f
}

// selectPieces keeps the list bounded: what is waited for first, then what is
// on its way, then what is missing, then what is here; in the order of the file.
func selectPieces(all []control.Piece) (kept []control.Piece, leftOut int) {
	if len(all) <= control.MaxWhyPieces {
		return all, 0
	}
	rank := func(p control.Piece) int {
		switch {
		case p.Readers > 0:
			return 0
		case len(p.Asked) > 0:
			return 1
		case p.State == "absent" || p.State == "arriving":
			return 2
		}
		return 3
	}
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b control.Piece) int { return rank(a) - rank(b) })
	kept = sorted[:control.MaxWhyPieces]
	slices.SortFunc(kept, func(a, b control.Piece) int { return cmp.Compare(a.Piece, b.Piece) })
	return kept, len(all) - len(kept)
}
