package trade

import (
	"slices"
	"time"

	"dcfs/cache/piece"
)

const (
	minPatience  = 400 * time.Millisecond // with a piece that somebody waits for
	overdueAfter = 5                      // times as long, with a peer that sends other pieces
	lateShun     = 3 * time.Second
)

// Late is a piece that somebody waited for too long, and that others are asked
// for now.
type Late struct {
	Of       PeerID // it was asked for
	Piece    piece.Index
	Patience time.Duration
}

// Late returns what was late since it was asked last.
func (p *Plan) Late() []Late {
	out := p.late
	p.late = nil
	return out
}

// hedge asks others for what somebody waits for and whose next block does not come:
// from a peer that sends nothing at all, which is then asked only for what nobody
// else has; or, much later, from one that sends other pieces. What the first one
// sends after all is not taken: a piece comes whole from one peer.
func (p *Plan) hedge() {
	patience := p.patience()
	var late []piece.Index
	for i, a := range p.asked {
		if a.degree == Urgent && !a.hashing && p.now.Sub(a.waited) >= patience && p.another(a.of, i) {
			late = append(late, i)
		}
	}
	slices.Sort(late)
	for _, i := range late {
		a := p.asked[i]
		q := a.of
		switch {
		case p.now.Sub(maxTime(q.heard, a.since)) >= patience:
			q.rest(lateShun, p.now)
		case p.now.Sub(a.waited) >= overdueAfter*patience:
			p.lacks(q, i)
		default:
			continue // who sends something comes to it
		}
		p.late = append(p.late, Late{q.id, i, patience})
		p.send(q.id, Cancel, i)
		p.forget(i)
		p.fillAhead(i)
	}
}

// rest has a peer asked only for what nobody else has, for a while: twice as long
// with each fault.
func (q *peer) rest(first time.Duration, now time.Time) {
	q.shun = now.Add(min(first<<min(q.faults, 10), longestShun))
	q.faults++
}

// patience is how long the next block of a piece may take that somebody waits
// for.
func (p *Plan) patience() time.Duration { return max(minPatience, 2*p.times.Median()) }

// another says whether somebody else can be asked for a piece.
func (p *Plan) another(than *peer, i piece.Index) bool {
	return slices.ContainsFunc(p.order, func(q *peer) bool { return q != than && q.has.has(i) && !p.now.Before(q.shun) })
}

// Latencies keeps the newest times that first blocks took, for their median. The zero
// value knows none.
type Latencies struct {
	ring [63]time.Duration
	n    int // how many ever
}

// Add takes note of one.
func (l *Latencies) Add(d time.Duration) {
	l.ring[l.n%len(l.ring)] = d
	l.n++
}

// Median returns 0 while nothing is known.
func (l *Latencies) Median() time.Duration {
	known := slices.Clone(l.ring[:min(l.n, len(l.ring))])
	if len(known) == 0 {
		return 0
	}
	slices.Sort(known)
	return known[len(known)/2]
}
