package swarm

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"dcfs/cache/piece"
	"dcfs/swarm/trade"
)

const (
	maxAsks = 16 // peers that are remembered of one piece
	maxBusy = 4  // peers that a message names

	forgottenAfter = 300 * time.Millisecond
)

// asks is the ledger of a swarm's requests: which peer was asked for what, since
// when, and how long peers take to answer. The library keeps that to itself; its
// callbacks tell it, under the client's lock, so nothing here calls back.
type asks struct {
	mu     sync.Mutex
	pieces map[piece.Index][]*ask // in the order of asking, until the piece is here
	sent   map[request]time.Time  // outstanding requests
	peers  map[*torrent.Peer]time.Time
	times  trade.Latencies
}

// ask is what one peer was asked of one piece.
type ask struct {
	piece.Ask
	peer *torrent.Peer
	came time.Time // of the last block
}

type request struct {
	peer *torrent.Peer
	torrent.Request
}

func newAsks() *asks {
	return &asks{
		pieces: make(map[piece.Index][]*ask), sent: make(map[request]time.Time),
		peers: make(map[*torrent.Peer]time.Time),
	}
}

// ledgers finds the ledger of a torrent. It is safe for concurrent use.
type ledgers struct{ all sync.Map } // *torrent.Torrent to *asks

func (l *ledgers) of(p *torrent.Peer) *asks {
	if a, ok := l.all.Load(p.Torrent()); ok {
		return a.(*asks)
	}
	return nil
}

// install hooks the ledgers into the library.
func (l *ledgers) install(c *torrent.Callbacks) {
	c.SentRequest = append(c.SentRequest, func(e torrent.PeerRequestEvent) {
		if a := l.of(e.Peer); a != nil {
			a.asked(e.Peer, e.Peer.RemoteAddr.String(), e.Request, time.Now())
		}
	})
	c.ReceivedRequested = append(c.ReceivedRequested, func(e torrent.PeerMessageEvent) {
		if a := l.of(e.Peer); a != nil {
			a.answered(e.Peer, torrent.Request{Index: e.Message.Index, ChunkSpec: torrent.ChunkSpec{
				Begin: e.Message.Begin, Length: pp.Integer(len(e.Message.Piece))}}, time.Now())
		}
	})
	c.DeletedRequest = append(c.DeletedRequest, func(e torrent.PeerRequestEvent) {
		if a := l.of(e.Peer); a != nil {
			a.ended(e.Peer, e.Request, time.Now())
		}
	})
	c.PeerClosed = append(c.PeerClosed, func(p *torrent.Peer) {
		if a := l.of(p); a != nil {
			a.closed(p)
		}
	})
}

// asked notes a request that was sent.
func (a *asks) asked(p *torrent.Peer, addr string, r torrent.Request, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent[request{p, r}] = now
	k := a.find(p, r)
	if k == nil {
		i := piece.Index(r.Index)
		if list := a.pieces[i]; len(list) >= maxAsks {
			a.pieces[i] = slices.Delete(list, 0, 1)
		}
		k = &ask{peer: p, Ask: piece.Ask{Peer: addr, Since: now}}
		a.pieces[i] = append(a.pieces[i], k)
	}
	k.Blocks++
	k.Dropped = time.Time{}
}

// answered notes a block that came and was asked for; ended follows.
func (a *asks) answered(p *torrent.Peer, r torrent.Request, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.peers[p] = now
	if since, ok := a.sent[request{p, r}]; ok {
		a.times.Add(now.Sub(since))
	}
	if k := a.find(p, r); k != nil {
		k.came = now
	}
}

// ended notes that a request is no longer outstanding, for whatever reason.
func (a *asks) ended(p *torrent.Peer, r torrent.Request, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.sent, request{p, r})
	if k := a.find(p, r); k != nil {
		if k.Blocks--; k.Blocks <= 0 {
			k.Blocks, k.Dropped = 0, now
		}
	}
}

func (a *asks) closed(p *torrent.Peer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.peers, p)
}

// done forgets who was asked for a piece that is here.
func (a *asks) done(i piece.Index) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.pieces, i)
}

// forgotten returns a piece that nobody is asked for any more, for a while. It
// returns the same one again after as long.
func (a *asks) forgotten(now time.Time) (piece.Index, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, list := range a.pieces {
		if !slices.ContainsFunc(list, func(k *ask) bool { return k.Dropped.IsZero() || now.Sub(k.Dropped) < forgottenAfter }) {
			list[0].Dropped = now
			return i, true
		}
	}
	return 0, false
}

// of lists who was asked for piece i, in the order of asking.
func (a *asks) of(i piece.Index) []piece.Ask {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]piece.Ask, 0, len(a.pieces[i]))
	for _, k := range a.pieces[i] {
		out = append(out, k.Ask)
	}
	return out
}

// Asked lists the peers that were asked for piece i, as long as it is not here:
// by the library, and then the one that the plan asks now.
func (s *Swarm) Asked(i piece.Index) []piece.Ask {
	return append(s.asks.of(i), s.exchange.looked().asked(i)...)
}

// Explain says in words whom piece i was asked from and since when, or why
// nobody was asked.
func (s *Swarm) Explain(i piece.Index) string {
	list := s.Asked(i)
	words := make([]string, len(list))
	for k, a := range list {
		words[k] = fmt.Sprintf("%s since %s", a.Peer, a.Since.Format(time.TimeOnly))
		if !a.Dropped.IsZero() {
			words[k] += " until " + a.Dropped.Format(time.TimeOnly)
		}
	}
	if len(list) > 0 {
		return strings.Join(words, ", ")
	}
	st := s.Stats()
	text := fmt.Sprintf("nobody was asked: %d peers known, %d connected", st.Known, st.Peers)
	if busy := s.asks.busy(); len(busy) > 0 {
		text += "; " + strings.Join(busy, ", ")
	}
	return text
}

// busy says of some peers that have requests how many, and since when the first
// of them. Peers answer in order, so that what is not asked waits for those.
func (a *asks) busy() (words []string) {
	type load struct {
		requests int
		since    time.Time
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	loads := make(map[string]load)
	for r, since := range a.sent {
		l := loads[r.peer.RemoteAddr.String()]
		if l.requests++; l.since.IsZero() || since.Before(l.since) {
			l.since = since
		}
		loads[r.peer.RemoteAddr.String()] = l
	}
	for addr, l := range loads {
		words = append(words, fmt.Sprintf("%s has %d other requests since %s", addr, l.requests, l.since.Format(time.TimeOnly)))
	}
	slices.Sort(words)
	return words[:min(len(words), maxBusy)]
}

// find returns the entry of a peer. a.mu is held.
func (a *asks) find(p *torrent.Peer, r torrent.Request) *ask {
	for _, k := range a.pieces[piece.Index(r.Index)] {
		if k.peer == p {
			return k
		}
	}
	return nil
}
