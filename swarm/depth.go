package swarm

import (
	"sync"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"
)

// A peer answers requests in their order, so a demanded piece waits behind all
// that was asked of that peer before. How much is asked ahead is therefore kept
// to what the peer sends in queueTime, many times what a data centre's round
// trip needs; and to less while somebody reads what is not here.
const (
	readerQueueTime = 40 * time.Millisecond
	readerLinger    = 500 * time.Millisecond // since the last demand
	queueTime       = 150 * time.Millisecond
	minRequests     = 2
	firstRequests   = 16
	maxRequests     = 128
	measureEvery    = 50 * time.Millisecond
	measureWeight   = 0.3 // of the newest measurement
	idleMeasurement = time.Second
)

// depth keeps the number of requests outstanding at each peer in proportion to
// the rate at which that peer sends.
type depth struct {
	mu    sync.Mutex
	peers map[*torrent.Peer]*meter
	read  time.Time // when a piece was demanded last
}

// meter measures one peer.
type meter struct {
	since time.Time
	bytes int64
	rate  float64 // bytes per second
}

func newDepth() *depth { return &depth{peers: make(map[*torrent.Peer]*meter)} }

// install hooks the depth into the library. Its callbacks hold the client's
// lock, under which PeerMaxRequests is read.
func (d *depth) install(c *torrent.Callbacks) {
	c.ReadExtendedHandshake = func(_ *torrent.PeerConn, m *pp.ExtendedHandshakeMessage) {
		if m.Reqq <= 0 || m.Reqq > firstRequests {
			m.Reqq = firstRequests
		}
	}
	c.ReceivedUsefulData = append(c.ReceivedUsefulData, func(e torrent.ReceivedUsefulDataEvent) {
		if conn, ok := e.Peer.TryAsPeerConn(); ok {
			if n, changed := d.received(e.Peer, len(e.Message.Piece), time.Now()); changed {
				conn.PeerMaxRequests = n
			}
		}
	})
	c.PeerClosed = append(c.PeerClosed, d.closed)
}

// received notes bytes from a peer. From time to time it returns how many
// requests may be outstanding there.
func (d *depth) received(p *torrent.Peer, bytes int, now time.Time) (requests int, changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.peers[p]
	if m == nil || now.Sub(m.since) > idleMeasurement {
		// Nothing was asked for a while: that says nothing about the peer.
		rate := 0.0
		if m != nil {
			rate = m.rate
		}
		d.peers[p] = &meter{since: now, rate: rate}
		return 0, false
	}
	m.bytes += int64(bytes)
	span := now.Sub(m.since)
	if span < measureEvery {
		return 0, false
	}
	rate := float64(m.bytes) / span.Seconds()
	if m.rate == 0 {
		m.rate = rate
	}
	m.rate += measureWeight * (rate - m.rate)
	m.since, m.bytes = now, 0
	queue := queueTime
	if now.Sub(d.read) < readerLinger {
		queue = readerQueueTime
	}
	want := int(m.rate * queue.Seconds() / requestLength)
	return min(max(want, minRequests), maxRequests), true
}

// demanded notes that somebody waits for a piece now.
func (d *depth) demanded(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.read = now
}

func (d *depth) closed(p *torrent.Peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.peers, p)
}
