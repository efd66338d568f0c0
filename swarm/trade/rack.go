package trade

import (
	"time"

	"dcfs/cache/piece"
)

// rack keeps what comes into this host's rack from outside low: the members'
// order for a piece, the same for all of them, says who fetches it from there.
// The others fetch it from within. When it does not come, the next one in the
// order fetches it, too, after a while. All methods may be called on nil: then
// nobody is nearer than others.
type rack struct {
	mates  []*peer
	copies []int32     // how many of them have a piece
	since  []time.Time // when a piece could be had outside, and not within, at first
	mine   set         // pieces that this host may fetch from outside
	stale  bool        // mine is to be made anew
	looked time.Time
	buf    set
}

const (
	rackPatience = 3 * time.Second // until the next one in the order
	rackPieces   = 16              // or as long as so many pieces take to come here, if that is longer
	rackEvery    = 250 * time.Millisecond
)

func newRack(n int) *rack {
	return &rack{copies: make([]int32, n), since: make([]time.Time, n), mine: newSet(n), buf: newSet(n), stale: true}
}

func (r *rack) joined(q *peer) {
	r.mates, r.stale = append(r.mates, q), true
}

func (r *rack) gone(q *peer) {
	for k, m := range r.mates {
		if m == q {
			r.mates, r.stale = append(r.mates[:k], r.mates[k+1:]...), true
			return
		}
	}
}

// came notes that a peer has piece i.
func (r *rack) came(p *Plan, q *peer, i piece.Index) {
	switch {
	case r == nil:
	case q.near:
		r.copies[i]++
		r.mine.remove(i)
	case q.closed: // it cannot be asked for it
	case r.copies[i] == 0 && r.since[i].IsZero():
		r.since[i] = p.now
		r.renew(p, i)
	}
}

// left notes that a peer has piece i no more.
func (r *rack) left(p *Plan, q *peer, i piece.Index) {
	if r == nil || !q.near {
		return
	}
	if r.copies[i]--; r.copies[i] == 0 {
		r.since[i] = p.now
		r.renew(p, i)
	}
}

// opened notes that a peer may be asked for everything that it has.
func (r *rack) opened(p *Plan, q *peer) {
	if r == nil || q.near {
		return
	}
	for i := range q.has.both(q.has, 0) {
		r.came(p, q, i)
	}
}

// outside is what a peer in another rack may be asked for.
func (r *rack) outside(q *peer) set {
	for k := range r.buf {
		r.buf[k] = q.has[k] & r.mine[k]
	}
	return r.buf
}

// renew looks whether piece i is this host's to fetch.
func (r *rack) renew(p *Plan, i piece.Index) {
	if r.copies[i] == 0 && p.now.Sub(r.since[i]) >= time.Duration(r.before(p.cfg.Key, i))*r.patience(p) {
		r.mine.add(i)
	} else {
		r.mine.remove(i)
	}
}

// patience is how long the next one in the order waits.
func (r *rack) patience(p *Plan) time.Duration {
	rate := 0.0
	for _, q := range p.order {
		rate += q.rate
	}
	if rate == 0 {
		return rackPatience
	}
	return max(rackPatience, time.Duration(rackPieces*float64(p.cfg.Layout.Length)/rate*float64(time.Second)))
}

// before is how many come before this host in the members' order for piece i:
// rendezvous hashing, so that one who comes or goes changes little.
func (r *rack) before(key uint64, i piece.Index) (n int) {
	own := weight(key, i)
	for _, m := range r.mates {
		if w := weight(m.who.Key, i); w > own || w == own && m.who.Key > key {
			n++
		}
	}
	return n
}

// weight mixes a key and a piece (the finalizer of MurmurHash3).
func weight(key uint64, i piece.Index) uint64 {
	x := key + uint64(i)*0x9e3779b97f4a7c15
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// tick looks now and then whose turn it is.
func (r *rack) tick(p *Plan) {
	if r == nil || !r.stale && p.now.Sub(r.looked) < rackEvery {
		return
	}
	for i := range p.need.both(p.need, 0) {
		if r.stale || r.copies[i] == 0 && !r.mine.has(i) {
			r.renew(p, i)
		}
	}
	r.looked, r.stale = p.now, false
}
