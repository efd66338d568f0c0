package tracker

import (
	"bytes"
	"net/netip"
	"slices"
	"time"
)

// Swarm is what the tracker knows of one infohash at one instant.
type Swarm struct {
	Infohash   [20]byte
	Complete   int    // peers with left=0
	Incomplete int    // the others
	Downloaded int64  // completed events since the swarm was last empty
	Peers      []Peer // by address
}

// Peer is what a peer told of itself when it last announced. All of it but the
// IP address is the peer's own word.
type Peer struct {
	ID         [20]byte
	Addr       netip.AddrPort
	Left       int64 // bytes that it lacks; -1 when it did not say
	Uploaded   int64 // bytes
	Downloaded int64 // bytes
	LastSeen   time.Time
}

// Snapshot returns a copy of all swarms, by infohash, without expired peers.
// It locks one swarm at a time, so two swarms may be of different instants.
// The cost is in proportion to all peers: it is meant for status pages.
func (t *Tracker) Snapshot() []Swarm {
	deadline := t.cfg.Now().Add(-t.cfg.Expiry)
	t.mu.RLock()
	swarms := make(map[[20]byte]*swarm, len(t.swarms))
	for h, s := range t.swarms {
		swarms[h] = s
	}
	t.mu.RUnlock()
	out := make([]Swarm, 0, len(swarms))
	for h, s := range swarms {
		if sw := s.snapshot(deadline); len(sw.Peers) > 0 {
			sw.Infohash = h
			out = append(out, sw)
		}
	}
	slices.SortFunc(out, func(a, b Swarm) int { return bytes.Compare(a.Infohash[:], b.Infohash[:]) })
	return out
}

func (s *swarm) snapshot(deadline time.Time) Swarm {
	out := s.copyPeers(deadline)
	slices.SortFunc(out.Peers, func(a, b Peer) int { return a.Addr.Compare(b.Addr) })
	return out
}

func (s *swarm) copyPeers(deadline time.Time) Swarm {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(deadline)
	c := s.counts()
	out := Swarm{
		Complete: c.complete, Incomplete: c.incomplete, Downloaded: c.downloaded,
		Peers: make([]Peer, 0, len(s.byID)),
	}
	for _, p := range s.byID {
		out.Peers = append(out.Peers, Peer{
			ID: p.id, Addr: p.addr, Left: p.left,
			Uploaded: p.uploaded, Downloaded: p.downloaded, LastSeen: p.seen,
		})
	}
	return out
}
