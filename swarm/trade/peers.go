package trade

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"dcfs/cache/piece"
)

// Join adds a peer that has nothing yet.
func (p *Plan) Join(id PeerID, who Who) {
	if p.peers[id] != nil {
		return
	}
	n := p.cfg.Layout.Count()
	q := &peer{
		id: id, who: who, near: p.rack != nil && who.Rack == p.cfg.Rack,
		has: newSet(n), offered: newSet(n), closed: who.Steers,
		asked: make(map[piece.Index]*ask), heard: p.now, meter: meter{since: p.now},
	}
	p.peers[id] = q
	p.order = append(p.order, q)
	p.news.joined(q)
	if q.near {
		p.rack.joined(q)
	}
	if p.steer != nil {
		p.steer.joined(p, id)
	}
}

// Peers is how many peers there are.
func (p *Plan) Peers() int { return len(p.peers) }

// Seeds is how many of them have every piece.
func (p *Plan) Seeds() (n int) {
	for _, q := range p.peers {
		if q.count == p.cfg.Layout.Count() {
			n++
		}
	}
	return n
}

// Gone removes a peer; what was asked of it is needed again.
func (p *Plan) Gone(id PeerID) {
	q := p.peers[id]
	if q == nil {
		return
	}
	delete(p.peers, id)
	q.left = true
	p.order = slices.DeleteFunc(p.order, func(r *peer) bool { return r == q })
	p.news.gone(q)
	for i := range q.has.both(q.has, 0) {
		p.copies[i]--
		p.rack.left(p, q, i)
	}
	if q.near {
		p.rack.gone(q)
	}
	for i := range q.asked {
		p.forget(i)
	}
	if p.steer != nil {
		p.steer.gone(p, q)
	}
	p.Fill()
}

// Has says that a peer has piece i.
func (p *Plan) Has(id PeerID, i piece.Index) {
	q := p.peers[id]
	if q == nil || i < 0 || int(i) >= len(p.urge) || q.has.has(i) {
		return
	}
	q.has.add(i)
	q.count++
	p.copies[i]++
	p.rack.came(p, q, i)
	if p.steer != nil {
		p.steer.spread(p, q, i)
	}
	switch {
	case p.ahead[i]:
		p.fillAhead(i)
	case p.need.has(i):
		p.fill(q)
	}
}

// Sent says how many bytes of pieces went to a peer so far. A host that steers
// believes nobody to have got more from it.
func (p *Plan) Sent(id PeerID, total int64) {
	if p.steer != nil && p.steer.open[id] != nil {
		p.steer.open[id].sent = total
	}
}

// lacks takes back what Has said.
func (p *Plan) lacks(q *peer, i piece.Index) {
	q.has.remove(i)
	q.count--
	p.copies[i]--
	p.rack.left(p, q, i)
}

// HasAll says that a peer has every piece.
func (p *Plan) HasAll(id PeerID) {
	for i := range p.urge {
		p.Has(id, piece.Index(i))
	}
}

// Offered says that a peer which steers would have us fetch piece i from it.
func (p *Plan) Offered(id PeerID, i piece.Index) {
	q := p.peers[id]
	if q == nil {
		return
	}
	if p.have.has(i) || p.urge[i] == piece.None || p.lent.has(i) {
		p.send(id, Reject, i)
		return
	}
	q.offered.add(i)
	p.fill(q)
}

// Opened says that a peer may be asked for anything that it has.
func (p *Plan) Opened(id PeerID) {
	if q := p.peers[id]; q != nil {
		q.closed = false
		p.news.last = true
		p.rack.opened(p, q)
		p.fill(q)
	}
}

// Fill asks every peer for what it can give, up to its window.
func (p *Plan) Fill() {
	if p.needs == 0 {
		return
	}
	p.fillAllAhead()
	for q := range p.each() {
		p.fill(q)
	}
}

// fillAllAhead asks for what goes before the rest, the most urgent first and then
// as it lies in the payload.
func (p *Plan) fillAllAhead() {
	for _, i := range slices.SortedFunc(maps.Keys(p.ahead), func(a, b piece.Index) int {
		return cmp.Or(cmp.Compare(p.urge[b], p.urge[a]), cmp.Compare(a, b))
	}) {
		p.fillAhead(i)
	}
}

// each yields all peers from a random one on: hosts that all begin with the same
// one ask too much of it.
func (p *Plan) each() iter.Seq[*peer] {
	return func(yield func(*peer) bool) {
		if len(p.order) == 0 {
			return
		}
		start := p.rand.IntN(len(p.order))
		for k := range p.order {
			if !yield(p.order[(start+k)%len(p.order)]) {
				return
			}
		}
	}
}

// fillAhead asks for a piece that goes before the rest, whatever else was asked
// of whom: for what somebody waits for always, for what is read soon while there
// is memory for it.
func (p *Plan) fillAhead(i piece.Index) {
	if degree(p.urge[i]) < Urgent && p.bytes > 0 && p.bytes+p.cfg.Layout.Size(i) > p.cfg.MaxAsked {
		return
	}
	var best *peer
	for _, q := range p.order {
		if q.has.has(i) && !p.avoids(q, i) && (best == nil || p.serves(q, best)) {
			best = q
		}
	}
	if best != nil {
		p.ask(best, i)
	}
}

// serves says whether a peer is to be asked before another for what goes before
// the rest: one that spreads its pieces comes last, who is far before it, and then
// who has most to do for us.
func (p *Plan) serves(q, than *peer) bool {
	if q.closed != than.closed {
		return than.closed
	}
	if q.near != than.near {
		return q.near
	}
	return q.bytes < than.bytes
}

// most is how much may be asked of all peers together: what they send in askTime.
// More would wait at some of them while others have nothing to send.
func (p *Plan) most() int64 {
	return min(p.cfg.MaxAsked, max(askPieces*p.cfg.Layout.Length, int64(p.peak*askTime.Seconds())))
}

func (p *Plan) window(q *peer) int64 {
	w := max(minWindow, 2*p.cfg.Layout.Length, int64(q.rate*windowTime.Seconds()))
	return min(w, max(maxWindow, 2*p.cfg.Layout.Length))
}

// fill asks one peer for what it can give, up to its window.
func (p *Plan) fill(q *peer) {
	if p.needs == 0 || q.left || q.bytes >= p.window(q) {
		return
	}
	for q.bytes < p.window(q) && (p.bytes < p.most() || p.bytes == 0) {
		i, ok := p.choose(q)
		if !ok {
			return
		}
		p.ask(q, i)
	}
}

func (p *Plan) ask(q *peer, i piece.Index) {
	size := p.cfg.Layout.Size(i)
	a := &ask{of: q, since: p.now, waited: p.now, degree: degree(p.urge[i])}
	p.asked[i], q.asked[i] = a, a
	q.bytes += size
	p.bytes += size
	q.offered.remove(i)
	p.renew(i)
	p.sendDegree(q.id, Want, i, a.degree)
}

// choose picks what to ask of a peer: what is wanted most, then what fewest
// have, then what comes next from where this host begins.
func (p *Plan) choose(q *peer) (best piece.Index, ok bool) {
	from, copies := p.sources(q)
	seen := 0
	for i := range p.need.both(from, p.cfg.Start) {
		if p.avoids(q, i) {
			continue
		}
		if !ok || p.urge[i] > p.urge[best] || p.urge[i] == p.urge[best] && copies[i] < copies[best] {
			best, ok = i, true
		}
		if seen++; seen == maxScan {
			break
		}
	}
	return best, ok
}

// sources is what a peer may be asked for, and of how many peers each piece could
// come.
func (p *Plan) sources(q *peer) (from set, copies []int32) {
	switch {
	case q.closed:
		return q.offered, p.copies
	case p.rack == nil:
		return q.has, p.copies
	case q.near:
		return q.has, p.rack.copies
	}
	return p.rack.outside(q), p.copies
}

// avoids says whether piece i is not to be asked of a peer that failed, because
// there are others.
func (p *Plan) avoids(q *peer, i piece.Index) bool {
	return p.now.Before(q.shun) && p.copies[i] > 1
}

// Tick looks after what takes long; call it some twenty times a second.
func (p *Plan) Tick() {
	p.expire()
	p.hedge()
	p.keepCalm()
	p.fillAllAhead()
	p.rack.tick(p)
	for q := range p.each() {
		p.fill(q)
		if q.bytes == 0 && p.bytes < p.cfg.MaxAsked {
			p.steal(q)
		}
	}
	if p.steer != nil {
		p.steer.tick(p)
	}
	p.news.send(p)
}

// expire gives up pieces that do not come: a Cancel was not answered, or the peer
// is silent. That one is not asked for them again, if there is another.
func (p *Plan) expire() {
	var late []piece.Index
	for i, a := range p.asked {
		if !a.hashing && (p.unanswered(a) || p.silent(a)) {
			late = append(late, i)
		}
	}
	slices.Sort(late)
	for _, i := range late {
		a := p.asked[i]
		if a == nil || !p.unanswered(a) && !p.silent(a) { // the one before changed that
			continue
		}
		q, silent := a.of, p.silent(a)
		q.rest(firstShun, p.now)
		p.forget(i)
		if !silent {
			continue
		}
		p.send(q.id, Cancel, i)
		q.heard = p.now // for another attempt
		if p.copies[i] > 1 && q.has.has(i) {
			p.lacks(q, i)
		}
	}
}

func (p *Plan) unanswered(a *ask) bool {
	return !a.canceled.IsZero() && a.got == 0 && p.now.Sub(a.canceled) > cancelTimeout
}

func (p *Plan) silent(a *ask) bool {
	return p.now.Sub(maxTime(a.of.heard, a.since)) > dataTimeout
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// steal takes a piece back that waits at a busy peer and that an idle one has,
// too. The busy one answers a Cancel only if it has not begun: so nothing comes
// twice.
func (p *Plan) steal(idle *peer) {
	var oldest piece.Index
	var found *ask
	from, _ := p.sources(idle)
	for i, a := range p.asked {
		if a.hashing || !a.canceled.IsZero() || a.got > 0 || a.of == idle || !from.has(i) || p.now.Sub(a.since) < stealAfter {
			continue
		}
		if found == nil || a.since.Before(found.since) || a.since.Equal(found.since) && i < oldest {
			oldest, found = i, a
		}
	}
	if found != nil {
		found.canceled = p.now
		p.send(found.of.id, Cancel, oldest)
	}
}
