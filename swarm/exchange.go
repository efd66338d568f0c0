package swarm

import (
	"context"
	"crypto/sha1"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anacrolix/torrent"

	"dcfs/cache/piece"
	"dcfs/swarm/metainfo"
	"dcfs/swarm/trade"
)

// exchange moves the pieces of one swarm between dcfs hosts. The library keeps
// the connections and serves stock clients; on the same connections dcfs hosts
// speak an extension of their own (package trade), because the library's order
// of requests and of uploads cannot be steered. While the exchange has peers
// that can give what is missing and nobody reads, the library downloads nothing;
// see lending.
//
// The library's callbacks hold its lock, so they only leave events; run takes
// them out and sends. deliver sends pieces, verify hashes them.
type exchange struct {
	store  Store
	layout piece.Layout
	n      int    // pieces
	sums   []byte // SHA-1 of the pieces, one after the other
	steers bool   // Spec.Steer
	rack   string // Spec.Rack
	log    *slog.Logger
	node   *Node
	lend   lending
	speaks sync.Map // the *torrent.PeerConn that speak the extension, to its *speaker

	wake chan struct{}
	look chan chan<- views // who asks what is asked of whom; see views
	done chan struct{}     // closed when run has ended
	mu   sync.Mutex
	in   []event
	// What waits there of messages, and of whom.
	inBytes int
	talk    []*speaker

	// Of run alone:
	plan    *trade.Plan
	conns   map[trade.PeerID]*link
	ids     map[*torrent.PeerConn]trade.PeerID
	lastID  trade.PeerID
	toCheck *backlog
	fresh   []piece.Index // that the library does not know of yet
	told    time.Time     // when it was told last
	forgave time.Time     // when blocks that nobody asked for were forgotten last

	up       sync.Mutex // guards queue and open
	open     map[trade.PeerID]*torrent.PeerConn
	queue    *trade.Queue
	upWake   chan struct{}
	received counter
	seeds    atomic.Int64 // peers of the exchange that have everything
}

// counter counts payload bytes that came and went through the exchange.
type counter struct {
	mu                 sync.Mutex
	came, useful, sent int64
	down, up           map[*torrent.PeerConn]int64
}

// link is one peer of the exchange.
type link struct {
	conn    *torrent.PeerConn
	unacked int64
	unasked int     // blocks that nobody asked for; half of them are forgotten from time to time
	words   float64 // messages that it may send without a block going either way
	at      time.Time
	sent    int64 // bytes to it for which it got words
}

// event is something that happened.
type event struct {
	kind  eventKind
	conn  *torrent.PeerConn
	msg   trade.Message
	have  []bool
	piece piece.Index
	urge  piece.Urgency
	good  bool
	who   trade.Who
	why   string
	done  chan struct{} // closed when it was handled; may be nil
}

type eventKind int

const (
	joined    eventKind = iota // conn speaks the extension; who it is
	left                       // conn is closed
	hasPiece                   // conn has piece
	hasSome                    // conn has have
	hasAll                     // conn has everything
	said                       // conn sent msg
	wanted                     // piece is wanted as urge says
	stands                     // the store has piece now, or no more: good
	checked                    // piece was hashed: good
	forgotten                  // the library asks nobody for piece
	viaWeb                     // piece is being fetched from a web seed, or no more: good
	offended                   // conn broke the rules: why
)

func newExchange(n *Node, spec Spec) (*exchange, error) {
	length, sums, err := metainfo.Cut(spec.Info)
	layout := piece.Layout{Total: spec.Total, Length: length}
	if err == nil && len(sums) != layout.Count()*sha1.Size {
		err = fmt.Errorf("%d bytes of hashes for %d pieces", len(sums), layout.Count())
	}
	if err != nil {
		return nil, err
	}
	e := &exchange{
		sums:  sums,
		store: spec.Store, layout: layout, n: layout.Count(), steers: spec.Steer, rack: spec.Rack, log: n.log, node: n,
		wake: make(chan struct{}, 1), look: make(chan chan<- views), done: make(chan struct{}), upWake: make(chan struct{}, 1),
		conns: make(map[trade.PeerID]*link), ids: make(map[*torrent.PeerConn]trade.PeerID),
		toCheck: newBacklog(), queue: trade.NewQueue(layout), open: make(map[trade.PeerID]*torrent.PeerConn),
		lend:     newLending(layout.Count()),
		received: counter{down: make(map[*torrent.PeerConn]int64), up: make(map[*torrent.PeerConn]int64)},
	}
	e.plan = trade.New(trade.Config{
		Layout: layout, Steer: spec.Steer, MaxAsked: n.unverified,
		Start: piece.Index(rand.IntN(max(layout.Count(), 1))), Rack: spec.Rack, Key: keyOf(n.client.PeerID()),
	})
	return e, nil
}

// post leaves an event for run.
func (e *exchange) post(ev event) {
	e.mu.Lock()
	e.in = append(e.in, ev)
	e.mu.Unlock()
	signal(e.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (e *exchange) events() []event {
	e.mu.Lock()
	defer e.mu.Unlock()
	in := e.in
	e.in, e.inBytes = nil, 0
	for _, sp := range e.talk {
		sp.pending, sp.bytes = 0, 0
	}
	e.talk = e.talk[:0]
	return in
}

const (
	// tradeTick is also how long a piece waits before others are told of it, so
	// that one message tells of several.
	tradeTick = 20 * time.Millisecond
	// tellEvery is how long it waits before the library tells everybody.
	tellEvery = 500 * time.Millisecond
)

// run handles events until ctx ends.
func (e *exchange) run(ctx context.Context, s *Swarm) {
	defer close(e.done)
	for i := range piece.Index(e.n) {
		if e.store.Have(i) {
			e.plan.Have(i, true)
		}
	}
	tick := time.NewTicker(tradeTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case reply := <-e.look:
			reply <- e.views()
			continue
		case <-e.wake:
			e.plan.Clock(time.Now())
		case now := <-tick.C:
			e.plan.Clock(now)
			e.plan.Tick()
			e.noteLate()
			e.seeds.Store(int64(e.plan.Seeds()))
			e.forgive(now)
			e.up.Lock()
			freed := e.queue.Tick(now)
			e.up.Unlock()
			if freed {
				signal(e.upWake)
			}
			e.lend.settle(s, e)
			if e.plan.Idle() || now.Sub(e.told) >= tellEvery {
				e.told = now
				e.tell(s)
			}
		}
		for _, ev := range e.events() {
			e.handle(s, ev)
		}
		e.flush()
	}
}

// noteLate says who was too late for a reader.
func (e *exchange) noteLate() {
	for _, l := range e.plan.Late() {
		if peer := e.conns[l.Of]; peer != nil {
			e.log.Info(isLate, "peer", peer.conn.RemoteAddr.String(), "piece", int(l.Piece), "patience", l.Patience.Round(time.Millisecond))
		}
	}
}

// tell makes the library look at new pieces; it tells everybody.
func (e *exchange) tell(s *Swarm) {
	for _, i := range e.fresh {
		s.recheck(i)
	}
	e.fresh = e.fresh[:0]
}

// flush sends what the plan and the acknowledgements want to go out.
func (e *exchange) flush() {
	for _, out := range e.plan.Take() {
		if l := e.conns[out.To]; l != nil {
			e.write(l.conn, out.Message)
		}
	}
}

func (e *exchange) write(c *torrent.PeerConn, m trade.Message) { e.writeEncoded(c, m.Encode()) }

// writeEncoded sends a message. The library copies it.
func (e *exchange) writeEncoded(c *torrent.PeerConn, m []byte) {
	if err := c.WriteExtendedMessage(trade.Extension, m); err != nil {
		e.log.Debug("a message to a peer", "peer", c.RemoteAddr, "cause", err)
	}
}

func (e *exchange) handle(s *Swarm, ev event) {
	id := e.ids[ev.conn]
	switch ev.kind {
	case joined:
		if e.node.bans.has(ip(ev.conn)) {
			_ = ev.conn.Close() // it never fails
			return
		}
		e.lastID++
		id = e.lastID
		e.ids[ev.conn], e.conns[id] = id, &link{conn: ev.conn, words: maxWords, at: time.Now()}
		e.up.Lock()
		e.open[id] = ev.conn
		e.up.Unlock()
		e.plan.Join(id, ev.who)
		e.lend.regard(s, e)
		e.lend.settle(s, e)
	case left:
		e.leave(id, ev.conn)
		e.lend.regard(s, e)
	case hasPiece:
		e.account(id)
		e.plan.Has(id, ev.piece)
	case hasSome:
		for i, has := range ev.have {
			if has {
				e.plan.Has(id, piece.Index(i))
			}
		}
	case hasAll:
		e.plan.HasAll(id)
	case wanted:
		e.want(s, ev.piece, ev.urge)
	case stands:
		e.plan.Have(ev.piece, e.store.Have(ev.piece))
	case checked:
		if ev.good {
			e.fresh = append(e.fresh, ev.piece)
			s.asks.done(ev.piece)
			s.hedge.relaxed(piece.Range{First: ev.piece, End: ev.piece + 1})
		}
		e.plan.Verified(ev.piece, ev.good)
	case forgotten:
		s.mu.Lock()
		s.askAnew(ev.piece, e.lend.told[ev.piece])
		s.mu.Unlock()
	case viaWeb:
		e.lend.viaWeb(s, e, ev.piece, ev.good)
		if ev.done != nil {
			close(ev.done)
		}
	case offended:
		e.node.bans.strike(ip(ev.conn), ev.why)
		_ = ev.conn.Close() // it never fails
	case said:
		if id != 0 && e.mayTalk(e.conns[id], ev.msg.Kind) {
			e.hear(id, ev.msg)
		}
	}
}

// want notes how urgently a piece is wanted.
func (e *exchange) want(s *Swarm, i piece.Index, u piece.Urgency) {
	e.lend.urge[i] = u
	if u == piece.Demand {
		e.lend.demanded(s, e, i)
	}
	e.plan.Want(i, u)
	e.lend.apply(s, e, i)
	if u == piece.Demand {
		e.plan.Calm(e.node.depth.calm(time.Now()))
	}
}

func (e *exchange) leave(id trade.PeerID, c *torrent.PeerConn) {
	e.plan.Gone(id)
	delete(e.conns, id)
	delete(e.ids, c)
	e.up.Lock()
	e.queue.Gone(id)
	delete(e.open, id)
	e.up.Unlock()
	signal(e.upWake)
	e.received.forget(c)
}

// account tells a plan that steers how much went to a peer; what that then says it
// has is held against it. Other plans believe it.
func (e *exchange) account(id trade.PeerID) {
	if l := e.conns[id]; e.steers && l != nil {
		e.plan.Sent(id, e.received.sentOf(l.conn))
	}
}

// hear handles a message of a peer.
func (e *exchange) hear(id trade.PeerID, m trade.Message) {
	switch m.Kind {
	case trade.Offer:
		e.plan.Offered(id, m.Piece)
	case trade.Open:
		e.plan.Opened(id)
	case trade.Reject:
		e.plan.Rejected(id, m.Piece)
	case trade.Want:
		e.up.Lock()
		ok := e.store.Have(m.Piece) && e.queue.Add(trade.Job{To: id, Piece: m.Piece, Degree: trade.Degree(m.Off)}, time.Now())
		e.up.Unlock()
		if !ok {
			e.write(e.conns[id].conn, trade.Message{Kind: trade.Reject, Piece: m.Piece})
		}
		signal(e.upWake)
	case trade.Hurry:
		e.up.Lock()
		e.queue.Hurry(id, m.Piece, trade.Degree(m.Off), time.Now())
		e.up.Unlock()
		signal(e.upWake)
	case trade.Calm:
		e.up.Lock()
		e.queue.Calm(id, m.Off, time.Now())
		e.up.Unlock()
		signal(e.upWake)
	case trade.Cancel:
		e.up.Lock()
		waiting := e.queue.Cancel(id, m.Piece)
		e.up.Unlock()
		if waiting {
			e.write(e.conns[id].conn, trade.Message{Kind: trade.Reject, Piece: m.Piece})
		}
	case trade.Ack:
		e.up.Lock()
		e.queue.Acked(id, m.Off, time.Now())
		idle := e.queue.Idle()
		e.up.Unlock()
		if !idle {
			signal(e.upWake)
		}
	case trade.Data:
		e.take(id, m)
	case trade.Have:
		e.account(id)
		for _, i := range m.Pieces {
			e.plan.Has(id, i)
		}
	}
}
