package swarm

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/anacrolix/torrent"

	"dcfs/cache/piece"
)

// The library asks one peer for a block, and waits for it for ever. Others take
// such a block over only at moments of their own: when they have answered all
// that they were asked. So when a piece that a reader waits for is late, it is
// given to others: the connection with the peer that was asked and says nothing
// is closed, which frees its requests at once. It is opened again later; a peer
// that does this often is left alone for longer.
//
// Asking a second peer for the same block, with the first request still
// standing, is not possible: the library keeps one peer for each block, and
// takes an answer that it did not ask for as an offence.
const (
	hedgeEvery  = 100 * time.Millisecond
	minPatience = 400 * time.Millisecond
	firstRest   = 3 * time.Second // that a peer which was late is left alone
	longestRest = time.Minute
	maxResting  = 1024

	isLate = "a peer is late; others are asked"
)

// hedge knows what readers wait for, and which peers were late. It is safe for
// concurrent use.
type hedge struct {
	mu      sync.Mutex
	waiting map[piece.Index]time.Time // demanded, and since when
	resting map[netip.AddrPort]rest
	wake    chan struct{} // somebody waits; one slot
}

// rest is for how long a peer is not offered to the library.
type rest struct {
	until time.Time
	last  time.Duration
}

func newHedge() *hedge {
	return &hedge{waiting: make(map[piece.Index]time.Time), resting: make(map[netip.AddrPort]rest), wake: make(chan struct{}, 1)}
}

// demanded notes that readers wait for the pieces of r.
func (h *hedge) demanded(r piece.Range, now time.Time) {
	h.mu.Lock()
	for i := r.First; i < r.End; i++ {
		if _, ok := h.waiting[i]; !ok {
			h.waiting[i] = now
		}
	}
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// relaxed notes that nobody waits for the pieces of r any more.
func (h *hedge) relaxed(r piece.Range) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := r.First; i < r.End; i++ {
		delete(h.waiting, i)
	}
}

// since returns the pieces that were waited for before the given time.
func (h *hedge) since(before time.Time) (late []piece.Index, any bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, since := range h.waiting {
		if since.Before(before) {
			late = append(late, i)
		}
	}
	return late, len(h.waiting) > 0
}

// punish lets a peer rest, twice as long each time.
func (h *hedge) punish(peer netip.AddrPort, now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.resting) >= maxResting {
		clear(h.resting)
	}
	d := min(max(2*h.resting[peer].last, firstRest), longestRest)
	h.resting[peer] = rest{now.Add(d), d}
	return d
}

// rests reports whether a peer is to be left alone now.
func (h *hedge) rests(peer netip.AddrPort, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now.Before(h.resting[peer].until)
}

// late returns the peers that hold requests for a piece, of which no block came
// within patience, and from which nothing at all came within patience. Whoever
// sends something answers in order, and gets there.
func (a *asks) late(i piece.Index, now time.Time, patience time.Duration) (peers []*torrent.Peer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.pieces[i] {
		if now.Sub(k.came) < patience {
			return nil // the piece is coming
		}
		if k.Blocks > 0 && now.Sub(k.Since) >= patience && now.Sub(a.peers[k.peer]) >= patience {
			peers = append(peers, k.peer)
		}
	}
	return peers
}

// silent reports whether a peer has had a request for longer than patience and
// has sent nothing within it.
func (a *asks) silent(p *torrent.Peer, now time.Time, patience time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.peers[p]) < patience {
		return false
	}
	for r, since := range a.sent {
		if r.peer == p && now.Sub(since) >= patience {
			return true
		}
	}
	return false
}

// patience is how long a block may take.
func (a *asks) patience() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(minPatience, 2*a.times.Median())
}

// hedgeLate looks after what readers wait for, until ctx ends. It sleeps while
// nobody waits.
func (s *Swarm) hedgeLate(ctx context.Context) {
	tick := time.NewTicker(hedgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.hedge.wake:
		}
		for any := true; any; {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				any = s.hedgeOnce(now)
			}
		}
	}
}

// hedgeOnce gives at most one peer's requests to others, and reports whether
// anybody waits for anything.
func (s *Swarm) hedgeOnce(now time.Time) (waiting bool) {
	patience := s.asks.patience()
	pieces, waiting := s.hedge.since(now.Add(-patience))
	if waiting {
		s.askForgotten()
	}
	for _, i := range pieces {
		for _, p := range s.asks.late(i, now, patience) {
			if s.takeOver(i, p, now, patience) {
				return waiting
			}
		}
	}
	return waiting
}

// takeOver closes the connection with a late peer if another has the piece and
// is alive.
func (s *Swarm) takeOver(i piece.Index, late *torrent.Peer, now time.Time, patience time.Duration) bool {
	for _, c := range s.t.PeerConns() {
		if &c.Peer == late || s.asks.silent(&c.Peer, now, patience) || !c.PeerPieces().Contains(uint32(i)) {
			continue
		}
		var rest time.Duration
		for _, a := range s.addresses(late) {
			rest = s.hedge.punish(a, now)
		}
		s.log.Info(isLate, "peer", late.RemoteAddr.String(), "piece", int(i),
			"patience", patience.Round(time.Millisecond), "left_alone", rest)
		_ = late.Close() // it never fails
		return true
	}
	return false
}
