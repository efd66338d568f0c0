package swarm

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anacrolix/torrent"

	"dcfs/cache/piece"
	"dcfs/swarm/trade"
)

// Spec says which swarm to join.
type Spec struct {
	InfoHash [20]byte
	Info     []byte   // the raw info dictionary (BEP 3); kept until Leave
	Total    int64    // bytes of the payload stream
	Trackers []string // HTTP announce URLs
	Peers    []string // HOST:PORT of peers to try besides those of the trackers
	Store    Store
	// Steer says that this node has everything and is where it all comes from:
	// it offers each piece to one host first.
	Steer bool
	// Rack names the rack that this host stands in, in at most 64 bytes; "" for
	// none. Hosts in one rack fetch each piece from outside about once.
	Rack string
	// WebSeeds are asked for what peers do not serve.
	WebSeeds WebSeeds
}

// Swarm is a node's part in the exchange of one release. It is safe for
// concurrent use.
type Swarm struct {
	node  *Node
	t     *torrent.Torrent
	rack  string // Spec.Rack
	log   *slog.Logger
	asks  *asks
	hedge *hedge

	exchange *exchange // nil when only the metadata is wanted
	web      *web      // nil without web seeds
	stop     context.CancelFunc
	book     *addressBook
	lasts    context.Context // until Leave
	announce sync.WaitGroup

	bytes  sources
	needs  needs
	wrongs atomic.Int64 // pieces whose hash was wrong

	mu      sync.Mutex
	left    bool                 // the library forgot the torrent
	leaving bool                 // Leave was called
	told    map[string]bool      // the trackers that are announced to
	plan    *piece.Plan          // how much each piece is wanted
	doubts  sync.Mutex           // its own lock: suspect may be called under the library's
	doubt   map[piece.Index]bool // guarded by doubts; see recheckDoubts
	unheard map[string]error     // trackers that failed the last time
	leaves  sync.Once
}

// Join enters the swarm of a release. It exchanges pieces until Leave; the
// context bounds only the joining itself.
func (n *Node) Join(ctx context.Context, spec Spec) (*Swarm, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("joining the swarm %x: %w", spec.InfoHash, context.Cause(ctx))
	}
	if len(spec.Rack) > trade.MaxRack {
		return nil, fmt.Errorf("joining the swarm %x: the rack's name has %d bytes; %d are the limit", spec.InfoHash, len(spec.Rack), trade.MaxRack)
	}
	e, err := n.newExchangeFor(spec)
	if err != nil {
		return nil, fmt.Errorf("the info dictionary of %x: %w", spec.InfoHash, err)
	}
	s := &Swarm{node: n, rack: spec.Rack, log: n.log, asks: newAsks(), hedge: newHedge(), exchange: e}
	if s.web, err = newWeb(spec, n.gate); err != nil {
		return nil, fmt.Errorf("the info dictionary of %x: %w", spec.InfoHash, err)
	}
	if e != nil {
		if _, taken := n.exchanges.LoadOrStore(spec.InfoHash, e); taken {
			return nil, fmt.Errorf("the swarm %x is joined already", spec.InfoHash)
		}
	}
	t, fresh := n.client.AddTorrentOpt(torrent.AddTorrentOpts{
		InfoHash:                 spec.InfoHash,
		Storage:                  newStoreClient(spec.Store, s),
		ChunkSize:                requestLength,
		DisableInitialPieceCheck: true,
	})
	if !fresh {
		n.exchanges.Delete(spec.InfoHash)
		return nil, fmt.Errorf("the swarm %x is joined already", spec.InfoHash)
	}
	if err := setInfo(t, spec); err != nil {
		n.exchanges.Delete(spec.InfoHash)
		t.Drop()
		return nil, fmt.Errorf("the info dictionary of %x: %w", spec.InfoHash, err)
	}
	n.ledgers.all.Store(t, s.asks)
	s.t, s.plan = t, piece.NewPlan(t.NumPieces())
	n.trail.follow(t, t.NumPieces(), &s.bytes)
	t.SetOnWriteChunkError(func(err error) { s.log.Error("the piece store refused a chunk", "cause", err) })
	s.start(spec.Trackers, spec.Peers)
	return s, nil
}

// requestLength is the length of a block request in bytes. Stock clients close
// the connection on more than 16 KiB.
const requestLength = 16 << 10

// Prefetch sets what the pieces of r are wanted for when nobody reads them:
// None, Background, Neighbour or Trace.
func (s *Swarm) Prefetch(r piece.Range, u piece.Urgency) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(s.plan.Base(r, u))
}

// Want raises the urgency of the pieces of r to at least u. It returns at once.
func (s *Swarm) Want(r piece.Range, u piece.Urgency) {
	switch u {
	case piece.Demand:
		s.node.depth.demanded(time.Now())
		s.hedge.demanded(r, time.Now())
	case piece.Window:
		s.node.depth.streaming(time.Now())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(s.plan.Want(r, u))
}

// Relax takes back what Want said of the pieces of r.
func (s *Swarm) Relax(r piece.Range) {
	s.hedge.relaxed(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(s.plan.Relax(r))
}

// apply tells the exchange, or the library, what the plan decided. s.mu is held.
func (s *Swarm) apply(changes []piece.Change) {
	for _, c := range changes {
		switch {
		case s.left:
		case s.exchange != nil:
			s.exchange.post(event{kind: wanted, piece: c.Piece, urge: c.Urgency})
		case s.web.has(c.Piece):
		default:
			s.t.Piece(int(c.Piece)).SetPriority(priorities[c.Urgency])
		}
	}
}

// newExchangeFor returns the exchange of a swarm, nil where dcfs hosts speak
// like all others.
func (n *Node) newExchangeFor(spec Spec) (*exchange, error) {
	if !n.trades {
		return nil, nil
	}
	return newExchange(n, spec)
}

// setPriority tells the library how urgent piece i is.
func (s *Swarm) setPriority(i piece.Index, u piece.Urgency) {
	s.mu.Lock()
	left := s.left
	s.mu.Unlock()
	if !left { // a torrent that is dropped meanwhile takes no harm
		s.t.Piece(int(i)).SetPriority(priorities[u])
	}
}

var priorities = [...]torrent.PiecePriority{
	piece.None:       torrent.PiecePriorityNone,
	piece.Background: torrent.PiecePriorityNormal,
	piece.Neighbour:  torrent.PiecePriorityHigh,
	piece.Trace:      torrent.PiecePriorityReadahead,
	piece.Window:     torrent.PiecePriorityNext,
	piece.Demand:     torrent.PiecePriorityNow,
}

// Lost tells the swarm that the store no longer has piece i.
func (s *Swarm) Lost(i piece.Index) {
	s.recheck(i)
	s.suspect(i)
	if s.exchange != nil {
		s.exchange.post(event{kind: stands, piece: i})
	}
}

// done is told by the storage of a piece that is here.
func (s *Swarm) done(i piece.Index) {
	s.asks.done(i)
	if s.exchange != nil {
		s.exchange.post(event{kind: stands, piece: i})
	}
	s.hedge.relaxed(piece.Range{First: i, End: i + 1})
}

// suspect notes a piece that the library may wrongly call complete, which it
// does a moment after the store did, whatever the store says in between, or
// that it may have forgotten to ask for.
func (s *Swarm) suspect(i piece.Index) {
	s.doubts.Lock()
	defer s.doubts.Unlock()
	if s.doubt == nil {
		s.doubt = make(map[piece.Index]bool)
	}
	s.doubt[i] = true
}

// recheckDoubts makes the library ask the store again about suspects.
func (s *Swarm) recheckDoubts() {
	s.doubts.Lock()
	doubt := s.doubt
	s.doubt = nil
	s.doubts.Unlock()
	for i := range doubt {
		s.recheck(i)
	}
}

func (s *Swarm) recheck(i piece.Index) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left || i < 0 || int(i) >= s.t.NumPieces() {
		return
	}
	s.t.Piece(int(i)).UpdateCompletion()
	if s.exchange == nil {
		s.askAnew(i, s.plan.Urgency(i))
	}
}

// askAnew has the library ask again for piece i, which is wanted as u says. It does not by
// itself after a hash that failed, or when the only peer rejected a request: only
// when something else happens, such as a change of the urgency. s.mu is held.
func (s *Swarm) askAnew(i piece.Index, u piece.Urgency) {
	if p := s.t.Piece(int(i)); u != piece.None && !s.left {
		p.SetPriority(torrent.PiecePriorityNone)
		p.SetPriority(priorities[u])
	}
}

// askForgotten has a piece asked for anew that was asked of somebody, did not come
// and is asked of nobody now. It is one, because the library then looks at all.
func (s *Swarm) askForgotten() {
	i, ok := s.asks.forgotten(time.Now())
	switch {
	case !ok:
	case s.exchange != nil:
		s.exchange.post(event{kind: forgotten, piece: i})
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.askAnew(i, s.plan.Urgency(i))
	}
}

// Stats are a swarm's figures since it was joined.
type Stats struct {
	Received int64 // payload bytes that came, duplicates included
	Useful   int64 // of those, the ones that were not here before
	Sent     int64 // payload bytes sent to peers
	Peers    int   // connections now
	Seeds    int   // of those, peers that have every piece
	Known    int   // peers known, connected or not
}

// Stats returns the swarm's figures.
func (s *Swarm) Stats() Stats {
	st := s.peerStats()
	if s.web != nil {
		web := s.web.bytes.Load()
		st.Received, st.Useful = st.Received+web, st.Useful+web
	}
	return st
}

// peerStats are those without what came from web seeds.
func (s *Swarm) peerStats() Stats {
	st := s.t.Stats()
	var came, useful, sent int64
	seeds := st.ConnectedSeeders
	if s.exchange != nil {
		came, useful, sent = s.exchange.received.totals()
		seeds += int(s.exchange.seeds.Load())
	}
	return Stats{
		Received: came + st.BytesReadData.Int64(), Useful: useful + st.BytesReadUsefulData.Int64(),
		Sent: sent + st.BytesWrittenData.Int64(), Peers: st.ActivePeers,
		Seeds: seeds, Known: st.TotalPeers,
	}
}

// Peer is one connection.
type Peer struct {
	Addr   string
	Client string // what the peer calls itself
	Pieces int    // how many pieces it has
	Down   int64  // payload bytes received from it
	Up     int64  // payload bytes sent to it
}

// Peers lists the connections of the moment.
func (s *Swarm) Peers() []Peer {
	conns := s.t.PeerConns()
	var down, up map[*torrent.PeerConn]int64
	if s.exchange != nil {
		down, up = s.exchange.received.byPeer()
	}
	out := make([]Peer, 0, len(conns))
	for _, c := range conns {
		st := c.Stats()
		name, _ := c.PeerClientName.Load().(string)
		out = append(out, Peer{
			Addr: c.RemoteAddr.String(), Client: name, Pieces: st.RemotePieceCount,
			Down: down[c] + st.BytesReadUsefulData.Int64(), Up: up[c] + st.BytesWrittenData.Int64(),
		})
	}
	return out
}

// Leave tells the trackers goodbye, for at most as long as ctx lasts, and ends
// the exchange. Further calls do nothing.
func (s *Swarm) Leave(ctx context.Context) {
	s.leaves.Do(func() {
		s.mu.Lock()
		s.leaving = true
		s.mu.Unlock()
		s.stop()
		done := make(chan struct{})
		s.node.tasks.Go(func() { // ends with the announcers, whose requests have a deadline
			s.announce.Wait()
			close(done)
		})
		select {
		case <-done:
		case <-ctx.Done():
		}
		s.mu.Lock()
		s.left = true
		s.mu.Unlock()
		s.t.Drop()
		if s.exchange != nil {
			s.node.exchanges.CompareAndDelete([20]byte(s.t.InfoHash()), s.exchange)
		}
		s.node.ledgers.all.Delete(s.t)
		s.node.trail.forget(s.t)
	})
}
