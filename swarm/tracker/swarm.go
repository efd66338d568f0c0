package tracker

import (
	"container/list"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// errSwept says that the swarm was removed from the tracker before its lock
// was taken. It never leaves the package.
var errSwept = errors.New("swarm was swept")

// peer is one member of a swarm, guarded by the swarm's lock.
type peer struct {
	id   [20]byte
	addr netip.AddrPort
	seen time.Time

	uploaded, downloaded, left int64
	completed                  bool // its completed event has been counted

	seed  bool          // which of the swarm's two slices holds it
	index int           // where in that slice
	age   *list.Element // its place in swarm.byAge
	mark  uint64        // the draw that took it last, see swarm.sample

	rack  string // "" for none
	place int    // where in swarm.racks
}

// swarm is the peers of one infohash. A peer is unique by its id and by its
// address. Every operation but the sweep of expired peers and Snapshot is
// independent of how many peers there are.
type swarm struct {
	total *atomic.Int64 // the tracker's count of peers

	mu         sync.Mutex
	swept      bool // out of the tracker's map, and for ever
	byID       map[[20]byte]*peer
	byAddr     map[netip.AddrPort]*peer
	byAge      *list.List // of *peer; the front was heard of longest ago
	racks      map[string][]*peer
	leechers   []*peer // in no particular order
	seeds      []*peer
	downloaded int64 // completed events
	draws      uint64
}

func newSwarm(total *atomic.Int64) *swarm {
	return &swarm{
		total:  total,
		byID:   map[[20]byte]*peer{},
		byAddr: map[netip.AddrPort]*peer{},
		byAge:  list.New(),
		racks:  map[string][]*peer{},
	}
}

// contact is what one peer learns of another.
type contact struct {
	id   [20]byte
	addr netip.AddrPort
}

// counts are the numbers of a swarm that announce and scrape both tell.
type counts struct {
	complete, incomplete int
	downloaded           int64
}

// result is the answer to one announce.
type result struct {
	counts
	peers []contact
}

// announce records what a says and draws the peers it is told of.
func (s *swarm) announce(a *announce, cfg Config, now time.Time) (result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.swept {
		return result{}, errSwept
	}
	s.expire(now.Add(-cfg.Expiry))
	if a.event == eventStopped {
		if p := s.byID[a.id]; p != nil {
			s.remove(p)
		}
		return result{counts: s.counts()}, nil
	}
	p, err := s.enter(a, cfg)
	if err != nil {
		return result{}, err
	}
	s.update(p, a, now)
	return result{counts: s.counts(), peers: s.draw(p, a.want)}, nil
}

// enter returns the announcer's record at its present address. Whoever held
// that address under another id is gone: a port has one listener.
func (s *swarm) enter(a *announce, cfg Config) (*peer, error) {
	p, holder := s.byID[a.id], s.byAddr[a.addr]
	if holder != nil && holder != p {
		s.remove(holder)
	}
	if p != nil {
		if p.addr != a.addr {
			delete(s.byAddr, p.addr)
			p.addr = a.addr
			s.byAddr[p.addr] = p
		}
		return p, nil
	}
	if n := len(s.byID); n >= cfg.MaxPeersPerSwarm {
		return nil, refusal(fmt.Sprintf("the swarm is full: it has %d peers", n))
	}
	if n := s.total.Add(1); n > int64(cfg.MaxPeers) {
		s.total.Add(-1)
		return nil, refusal(fmt.Sprintf("this tracker is full: it holds %d peers", cfg.MaxPeers))
	}
	p = &peer{id: a.id, addr: a.addr, seed: a.left == 0}
	s.byID[p.id], s.byAddr[p.addr] = p, p
	p.age = s.byAge.PushBack(p)
	s.place(p)
	return p, nil
}

func (s *swarm) update(p *peer, a *announce, now time.Time) {
	p.seen, p.uploaded, p.downloaded, p.left = now, a.uploaded, a.downloaded, a.left
	s.byAge.MoveToBack(p.age)
	if a.rack != p.rack {
		s.unrack(p)
		s.enrack(p, a.rack)
	}
	if seed := a.left == 0; seed != p.seed {
		s.unplace(p)
		p.seed = seed
		s.place(p)
	}
	if a.event == eventCompleted && !p.completed {
		p.completed = true
		s.downloaded++
	}
}

// side returns the slice that holds p, or is to hold it.
func (s *swarm) side(p *peer) *[]*peer {
	if p.seed {
		return &s.seeds
	}
	return &s.leechers
}

func (s *swarm) place(p *peer) {
	side := s.side(p)
	p.index = len(*side)
	*side = append(*side, p)
}

// unplace moves the slice's last peer into p's place.
func (s *swarm) unplace(p *peer) {
	side := s.side(p)
	last := len(*side) - 1
	moved := (*side)[last]
	(*side)[p.index] = moved
	moved.index = p.index
	(*side)[last] = nil
	*side = (*side)[:last]
}

func (s *swarm) remove(p *peer) {
	s.unplace(p)
	s.unrack(p)
	s.byAge.Remove(p.age)
	delete(s.byID, p.id)
	delete(s.byAddr, p.addr)
	s.total.Add(-1)
}

// expire forgets the peers not heard of since deadline.
func (s *swarm) expire(deadline time.Time) {
	for e := s.byAge.Front(); e != nil; e = s.byAge.Front() {
		p := e.Value.(*peer)
		if p.seen.After(deadline) {
			return
		}
		s.remove(p)
	}
}

// sweep expires peers and reports whether the swarm is empty and may be
// forgotten; after true the swarm must not be used. Its count of downloads
// goes with it.
func (s *swarm) sweep(deadline time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(deadline)
	s.swept = len(s.byID) == 0
	return s.swept
}

func (s *swarm) counts() counts {
	return counts{complete: len(s.seeds), incomplete: len(s.leechers), downloaded: s.downloaded}
}

// sample draws at most want distinct peers for self, every set and every order
// equally likely, in O(want) steps: Robert Floyd's algorithm over the numbers
// of the candidates, with a mark on the peer instead of a set of numbers. The
// candidates are the leechers without self, and for a leecher the seeds too:
// two seeds have nothing to give each other.
func (s *swarm) sample(self *peer, want int) []contact {
	skip, n := len(s.leechers), len(s.leechers) // of a seed: all leechers, none skipped
	if !self.seed {
		skip, n = self.index, len(s.leechers)-1+len(s.seeds)
	}
	at := func(i int) *peer {
		if i >= skip {
			i++
		}
		if i < len(s.leechers) {
			return s.leechers[i]
		}
		return s.seeds[i-len(s.leechers)]
	}
	want = min(want, n)
	s.draws++
	out := make([]contact, 0, want)
	for top := n - want; top < n; top++ {
		p := at(rand.IntN(top + 1))
		if p.mark == s.draws {
			p = at(top)
		}
		p.mark = s.draws
		out = append(out, contact{p.id, p.addr})
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}
