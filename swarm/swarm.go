package swarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/anacrolix/torrent"

	"dcfs/cache/piece"
)

// Spec says which swarm to join.
type Spec struct {
	InfoHash [20]byte
	Info     []byte   // the raw info dictionary (BEP 3)
	Trackers []string // HTTP announce URLs
	Peers    []string // HOST:PORT of peers to try besides those of the trackers
	Store    Store
}

// Swarm is a node's part in the exchange of one release. It is safe for
// concurrent use.
type Swarm struct {
	node *Node
	t    *torrent.Torrent
	log  *slog.Logger

	stop     context.CancelFunc
	announce sync.WaitGroup

	mu   sync.Mutex
	base []piece.Urgency // what each piece is wanted for when nobody reads it
	now  []piece.Urgency // what the library was told last
}

// Join enters the swarm of a release. It exchanges pieces until Leave; the
// context bounds only the joining itself.
func (n *Node) Join(ctx context.Context, spec Spec) (*Swarm, error) {
	t, fresh := n.client.AddTorrentOpt(torrent.AddTorrentOpts{
		InfoHash:                 spec.InfoHash,
		Storage:                  storeClient{spec.Store},
		ChunkSize:                requestLength,
		DisableInitialPieceCheck: true,
	})
	if !fresh {
		return nil, fmt.Errorf("the swarm %x is joined already", spec.InfoHash)
	}
	if err := t.SetInfoBytes(spec.Info); err != nil {
		t.Drop()
		return nil, fmt.Errorf("the info dictionary of %x: %w", spec.InfoHash, err)
	}
	s := &Swarm{
		node: n, t: t, log: n.log,
		base: make([]piece.Urgency, t.NumPieces()), now: make([]piece.Urgency, t.NumPieces()),
	}
	t.SetOnWriteChunkError(func(err error) { s.log.Error("the piece store refused a chunk", "cause", err) })
	s.start(spec.Trackers, spec.Peers)
	return s, ctx.Err()
}

// requestLength is the length of a block request in bytes. Stock clients close
// the connection on more than 16 KiB.
const requestLength = 16 << 10

// Prefetch sets what the pieces of r are wanted for when nobody reads them:
// None, Background, Neighbour or Trace.
func (s *Swarm) Prefetch(r piece.Range, u piece.Urgency) {
	s.each(r, func(i piece.Index) piece.Urgency {
		s.base[i] = u
		return max(s.now[i], u)
	})
}

// Want raises the urgency of the pieces of r to at least u. It returns at once.
func (s *Swarm) Want(r piece.Range, u piece.Urgency) {
	if u == piece.Demand {
		s.node.depth.demanded(time.Now())
	}
	s.each(r, func(i piece.Index) piece.Urgency { return max(s.now[i], u) })
}

// Relax takes back what Want said of the pieces of r.
func (s *Swarm) Relax(r piece.Range) {
	s.each(r, func(i piece.Index) piece.Urgency { return s.base[i] })
}

// each tells the library the new urgency of each piece of r that changes.
func (s *Swarm) each(r piece.Range, next func(piece.Index) piece.Urgency) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := max(r.First, 0); i < min(r.End, piece.Index(len(s.now))); i++ {
		if u := next(i); u != s.now[i] {
			s.now[i] = u
			s.t.Piece(int(i)).SetPriority(priorities[u])
		}
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
func (s *Swarm) Lost(i piece.Index) { s.t.Piece(int(i)).UpdateCompletion() }

// Stats are a swarm's figures since it was joined.
type Stats struct {
	Received int64 // payload bytes that came from peers, duplicates included
	Useful   int64 // of those, the ones that were not here before
	Sent     int64 // payload bytes sent to peers
	Peers    int   // connections now
	Seeds    int   // of those, peers that have every piece
	Known    int   // peers known, connected or not
}

// Stats returns the swarm's figures.
func (s *Swarm) Stats() Stats {
	st := s.t.Stats()
	return Stats{
		Received: st.BytesReadData.Int64(), Useful: st.BytesReadUsefulData.Int64(),
		Sent: st.BytesWrittenData.Int64(), Peers: st.ActivePeers,
		Seeds: st.ConnectedSeeders, Known: st.TotalPeers,
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
	out := make([]Peer, 0, len(conns))
	for _, c := range conns {
		st := c.Stats()
		name, _ := c.PeerClientName.Load().(string)
		out = append(out, Peer{
			Addr: c.RemoteAddr.String(), Client: name, Pieces: st.RemotePieceCount,
			Down: st.BytesReadUsefulData.Int64(), Up: st.BytesWrittenData.Int64(),
		})
	}
	return out
}

// Leave tells the trackers goodbye, for at most as long as ctx lasts, and ends
// the exchange.
func (s *Swarm) Leave(ctx context.Context) {
	s.stop()
	done := make(chan struct{})
	go func() { // ends with the announcers, whose requests have a deadline
		s.announce.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	s.t.Drop()
}

// ErrNoMetadata is wrapped when no peer gave the info dictionary in time.
var ErrNoMetadata = errors.New("no peer has the release's metadata")

// FetchInfo gets the info dictionary of a swarm from its peers (BEP 9). The
// library checks it against the info-hash and bounds its size to 16 MiB.
func (n *Node) FetchInfo(ctx context.Context, infoHash [20]byte, trackers, peers []string) ([]byte, error) {
	t, fresh := n.client.AddTorrentOpt(torrent.AddTorrentOpts{InfoHash: infoHash, Storage: storeClient{noStore{}}})
	if !fresh {
		return nil, fmt.Errorf("the swarm %x is joined already", infoHash)
	}
	s := &Swarm{node: n, t: t, log: n.log}
	s.start(trackers, peers)
	defer s.Leave(ctx)
	select {
	case <-t.GotInfo():
		mi := t.Metainfo()
		return mi.InfoBytes, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNoMetadata, context.Cause(ctx))
	}
}
