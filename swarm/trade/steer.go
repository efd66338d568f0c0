package trade

import (
	"time"

	"dcfs/cache/piece"
)

// steering is how a seeder from which everything comes spreads its pieces: each
// is offered to one host first, the next to the host with the fewest offers
// outstanding, in the order of the payload, so that its link carries every byte
// once. When everything is out, it serves like any other.
type steering struct {
	out    set // some peer has, or had, it
	left   int // pieces that are not out
	next   piece.Index
	offers map[piece.Index]offer
	open   map[PeerID]*account
	told   bool // that everything is out
}

type offer struct {
	to    PeerID
	since time.Time
}

// account is what one peer was offered.
type account struct {
	open     int // offers outstanding
	taken    int // offers fulfilled since the last tick
	declined int // offers that it did not want since it took one, or was left alone
	most     int // how many may be outstanding

	quiet time.Time     // until when it is offered nothing
	pause time.Duration // how long that was

	sent int64 // bytes that went to it, as Sent says
	got  int   // pieces that it was offered and has, at most as many as went to it

	told bool // that it may ask for anything

	ever bool      // it has got a piece
	late int       // times that it did not take offers in time, since it got one
	shun time.Time // until when others are offered more first
}

const (
	offerTimeout = 30 * time.Second
	offerFirst   = 8 * time.Second // for who has not taken any yet
	offerShun    = time.Minute     // that who is late gets no more, twice as long each time
	offerLeast   = 2
	offerTicks   = 4 // offers of so many ticks are outstanding, at the speed of a peer

	// After so many that it did not want, a peer is offered nothing for a while, twice
	// as long each time: a lazy mount wants none.
	declinesFirst = 4
	firstQuiet    = 20 * time.Millisecond
	longestQuiet  = time.Second
	believed      = 3 // one in so many peers has to say that it has what nobody was sent
)

func newSteering(n int) *steering {
	return &steering{out: newSet(n), left: n, offers: make(map[piece.Index]offer), open: make(map[PeerID]*account)}
}

func (s *steering) joined(p *Plan, id PeerID) {
	s.open[id] = &account{most: offerLeast}
	if s.told {
		p.send(id, Open, 0)
	}
}

// gone takes back what was offered to a peer, and what only it had. A peer that
// had everything left because it needs nobody: it is not counted as a loss.
func (s *steering) gone(p *Plan, q *peer) {
	delete(s.open, q.id)
	for i, o := range s.offers {
		if o.to == q.id {
			delete(s.offers, i)
		}
	}
	if q.count == p.cfg.Layout.Count() {
		return
	}
	for i := range q.has.both(s.out, 0) {
		if p.copies[i] == 0 {
			s.out.remove(i)
			s.left++
		}
	}
}

// spread notes that a peer has a piece, or says so. Who was offered it is believed
// as far as it was sent something, and a part of all peers together: they had it when
// this host came. A few that say that they have everything make no difference.
func (s *steering) spread(p *Plan, q *peer, i piece.Index) {
	out := int(p.copies[i]) >= max(2, (len(p.peers)+believed-1)/believed)
	if o, ok := s.offers[i]; ok && o.to == q.id {
		s.withdraw(i) // it may have it from elsewhere
		if a := s.open[q.id]; int64(a.got)*p.cfg.Layout.Length < a.sent {
			a.got++
			a.taken++
			a.declined, a.pause = 0, 0
			out = true
		}
	}
	if out {
		if a := s.open[q.id]; a != nil { // it fetches, at least from others
			a.ever, a.late, a.shun = true, 0, time.Time{}
		}
		if !s.out.has(i) {
			s.out.add(i)
			s.left--
		}
	}
	s.offer(p)
}

func (s *steering) withdraw(i piece.Index) {
	o := s.offers[i]
	delete(s.offers, i)
	if a := s.open[o.to]; a != nil && a.open > 0 {
		a.open--
	}
}

func (s *steering) declined(p *Plan, from PeerID, i piece.Index) {
	if o, ok := s.offers[i]; ok && o.to == from {
		s.withdraw(i)
		a := s.open[from]
		if p.now.Before(a.quiet) {
			return
		}
		a.most = offerLeast // it wants little
		if a.declined++; a.declined > declinesFirst {
			a.pause = min(max(2*a.pause, firstQuiet), longestQuiet)
			a.most, a.declined, a.quiet = 0, 0, p.now.Add(a.pause)
		}
		s.offer(p)
	}
}

// offer hands out offers while there are peers with few.
func (s *steering) offer(p *Plan) {
	if s.left == 0 && !s.told {
		s.told = true
		for _, q := range p.order {
			p.send(q.id, Open, 0)
		}
	}
	if s.left == 0 || len(s.open) == 0 {
		return
	}
	var nothing map[PeerID]bool // is there for them
	for {
		id, a := s.idlest(p, nothing)
		if a == nil || a.open >= a.most {
			return
		}
		i, ok, others := s.pick(p, p.peers[id])
		if !ok && !others {
			return
		}
		if !ok { // all that it lacks is out, or offered: it need not wait for what it says it has
			if nothing == nil {
				nothing = make(map[PeerID]bool)
			}
			if nothing[id] = true; !a.told {
				a.told = true
				p.send(id, Open, 0)
			}
			continue
		}
		s.offers[i] = offer{id, p.now}
		a.open++
		p.send(id, Offer, i)
	}
}

// tick adapts how many offers are outstanding to how fast they are taken.
func (s *steering) tick(p *Plan) {
	for _, a := range s.open {
		if !p.now.Before(a.quiet) {
			a.most = max(offerLeast, a.most-1, offerTicks*a.taken)
		}
		a.taken = 0
	}
	s.offer(p)
}

// idlest returns the peer that may be offered most, of those that were not late
// if there are any. Who has everything, or says so, is offered nothing.
func (s *steering) idlest(p *Plan, nothing map[PeerID]bool) (best PeerID, of *account) {
	better := func(a *account, id PeerID) bool {
		if late, than := p.now.Before(a.shun), p.now.Before(of.shun); late != than {
			return than
		}
		return a.open-a.most < of.open-of.most || a.open-a.most == of.open-of.most && id < best
	}
	for id, a := range s.open {
		if !nothing[id] && p.peers[id].count < p.cfg.Layout.Count() && (of == nil || better(a, id)) {
			best, of = id, a
		}
	}
	return best, of
}

// late says whether an offer was not taken in time; whoever it was made to then
// gets no others for a while, or a host that hangs would be offered the same
// pieces again and again.
func (s *steering) late(o offer, now time.Time) bool {
	a := s.open[o.to]
	if a == nil {
		return true
	}
	most := offerTimeout
	if !a.ever {
		most = offerFirst
	}
	if now.Sub(o.since) < most {
		return false
	}
	if !now.Before(a.shun) {
		a.shun = now.Add(offerShun << min(a.late, 6))
		a.late++
	}
	return true
}

// pick returns the next piece that is neither out nor offered, and that the peer
// does not say it has; and whether there are such that it says it has.
func (s *steering) pick(p *Plan, q *peer) (next piece.Index, ok, others bool) {
	n := piece.Index(p.cfg.Layout.Count())
	for range n {
		i := s.next
		s.next = (s.next + 1) % n
		if s.out.has(i) {
			continue
		}
		o, offered := s.offers[i]
		if offered && !s.late(o, p.now) {
			continue
		}
		if q.has.has(i) {
			others = true
			continue
		}
		if offered {
			s.withdraw(i)
		}
		return i, true, others
	}
	return 0, false, others
}
