package swarm

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/anacrolix/torrent"

	"dcfs/cache/piece"
)

const (
	// fewOthers is how many other hosts a piece has to be at so that this one is
	// not needed for it. Not one, because several end at the same moment.
	fewOthers = 3
	// fetchingFor is how long after the last sign of progress a peer counts as
	// one that fetches: a lazy mount lacks pieces for ever and wants none.
	fetchingFor = time.Minute
)

// Need is what connected peers still lack and few others could give them.
type Need struct {
	Peers  int // that fetch, and lack such pieces
	Pieces int // that a peer which fetches lacks, and fewer than Few others have
	Few    int
}

// speaker is a peer that speaks the extension.
type speaker struct {
	keeper atomic.Bool // it has the piece that the library never learns of; see hide

	// Guarded by exchange.mu:
	pending, bytes int  // its messages that wait to be handled
	offended       bool // it is being closed
}

// needs remembers which peers make progress.
type needs struct {
	mu    sync.Mutex
	peers map[*torrent.PeerConn]progress
}

type progress struct {
	pieces int   // that the peer has
	sent   int64 // bytes to it
	at     time.Time
}

// Need tells what is needed of this host, if it has everything. Whether a peer
// makes progress is seen from call to call: ask about once a second.
func (s *Swarm) Need() Need { return s.needAt(time.Now()) }

func (s *Swarm) needAt(now time.Time) Need {
	var all []holding
	conns := s.t.PeerConns()
	for _, c := range conns {
		all = append(all, holding{has: s.pieces(c)})
	}
	s.needs.judge(conns, all, s.sentTo(conns), now)
	return scarce(all, s.t.NumPieces(), fewOthers)
}

// pieces is what a peer has.
func (s *Swarm) pieces(c *torrent.PeerConn) *piece.Set {
	n := s.t.NumPieces()
	has := piece.NewSet(n)
	for it := c.PeerPieces().Iterator(); it.HasNext(); {
		has.Add(piece.Index(it.Next()))
	}
	if s.exchange == nil {
		return has
	}
	if v, ok := s.exchange.speaks.Load(c); ok && v.(*speaker).keeper.Load() {
		has.Add(piece.Index(n - 1))
	}
	return has
}

// sentTo is how many bytes went to each peer.
func (s *Swarm) sentTo(conns []*torrent.PeerConn) []int64 {
	var up map[*torrent.PeerConn]int64
	if s.exchange != nil {
		_, up = s.exchange.received.byPeer()
	}
	out := make([]int64, len(conns))
	for i, c := range conns {
		st := c.Stats()
		out[i] = up[c] + st.BytesWrittenData.Int64()
	}
	return out
}

// holding is what a peer has, and whether it fetches more.
type holding struct {
	has     *piece.Set
	fetches bool
}

// judge finds out which peers fetch: what they have, or got from here, grew not
// long ago.
func (k *needs) judge(conns []*torrent.PeerConn, all []holding, sent []int64, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	seen := make(map[*torrent.PeerConn]progress, len(conns))
	for i, c := range conns {
		is := progress{all[i].has.Len(), sent[i], now}
		if was, known := k.peers[c]; known && is.pieces <= was.pieces && is.sent <= was.sent {
			is.at = was.at
		}
		seen[c] = is
		all[i].fetches = !all[i].has.Full() && now.Sub(is.at) < fetchingFor
	}
	k.peers = seen
}

// scarce counts the peers that fetch and lack pieces which fewer than few of all
// have, and these pieces, of n.
func scarce(all []holding, n, few int) Need {
	copies := make([]int, n)
	for _, h := range all {
		for i := range h.has.All() {
			copies[i]++
		}
	}
	out := Need{Few: few}
	counted := piece.NewSet(n)
	for _, h := range all {
		if !h.fetches {
			continue
		}
		needy := false
		for i := range piece.Index(n) {
			if copies[i] < few && !h.has.Has(i) {
				needy = true
				counted.Add(i)
			}
		}
		if needy {
			out.Peers++
		}
	}
	out.Pieces = counted.Len()
	return out
}
