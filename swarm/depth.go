package swarm

import (
	"strings"
	"sync"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"
)

// A peer answers requests in their order, so a demanded piece waits behind all
// that was asked of that peer before. The library asks in batches: when all that
// was asked of a peer has come, it looks for what to ask for next, and meanwhile
// the link is idle. So batches have to be much longer than that pause to fill the
// link, and no longer, so that readers do not wait; with many peers longer, since
// the look takes a while. While somebody reads in order, what is asked ahead is
// mostly what that reader needs next. Where pages are read here and there, all of
// it is in the way, and some of the link is given up for them.
const (
	queueTime       = 40 * time.Millisecond // that a batch takes to be sent, for each peer
	maxQueueTime    = 150 * time.Millisecond
	streamQueueTime = 40 * time.Millisecond // while somebody reads in order

	pageQueueTime = 4 * time.Millisecond // while pages are read here and there
	pagePauses    = 4                    // that a batch is as long as
	pageRequests  = 8                    // at least, if they take no longer than pageMost
	pageMost      = 12 * time.Millisecond

	calmTime = 2 * time.Millisecond // likewise, that others have under way by the plan

	readerLinger  = 500 * time.Millisecond // since somebody read
	minRequests   = 2
	firstRequests = 16
	maxRequests   = 128
	measureEvery  = 50 * time.Millisecond
	measureWeight = 0.3 // of the newest measurement
)

// Transmission looks at requests twice a second and then answers all that it has.
// Behind a batch as short as above it idles for most of the time, and the shorter
// the batch, the lower the rate, the shorter the next one. So a client of another
// make that pauses is asked for twice as much at a time until the sending takes
// pulseShare times as long as the pause. That is less than it says that it keeps
// (reqq, BEP 10): of 512 requests Transmission 3.00 forgets one, and the next batch
// waits for it for ever.
const (
	pulsePause    = 100 * time.Millisecond
	pulseShare    = 3
	pulseRequests = 512 // at most
	pulseReqq     = 0.75
)

// depth keeps the number of requests outstanding at each peer in proportion to
// the rate at which that peer sends.
type depth struct {
	mu     sync.Mutex
	peers  map[*torrent.Peer]*meter
	stock  map[*torrent.Peer]int // clients of other makes: the requests that each can keep
	read   time.Time             // when a piece was demanded last
	stream time.Time             // when one was wanted last behind what is read in order
}

// meter measures one peer while it has requests.
type meter struct {
	bytes int64
	busy  time.Duration // for which it had requests, before began
	rate  float64       // bytes per second

	out    int           // requests that it has
	asked  int           // requests of this batch
	pulse  int           // requests that a batch needs lest the peer idles; 0 if it does not pause
	waited time.Duration // from the first request of this batch to the first of its blocks
	began  time.Time     // when it was given the first of them
	first  bool          // nothing of the batch has come yet
	pause  time.Duration // from the first request of a batch to the first of its blocks, without the sending of that
}

func newDepth() *depth {
	return &depth{peers: make(map[*torrent.Peer]*meter), stock: make(map[*torrent.Peer]int)}
}

// install hooks the depth into the library. Its callbacks hold the client's
// lock, under which PeerMaxRequests is read.
func (d *depth) install(c *torrent.Callbacks) {
	c.ReadExtendedHandshake = func(p *torrent.PeerConn, m *pp.ExtendedHandshakeMessage) {
		d.met(&p.Peer, m)
		if m.Reqq <= 0 || m.Reqq > firstRequests {
			m.Reqq = firstRequests
		}
	}
	c.SentRequest = append(c.SentRequest, func(e torrent.PeerRequestEvent) { d.sent(e.Peer, time.Now()) })
	c.DeletedRequest = append(c.DeletedRequest, func(e torrent.PeerRequestEvent) { d.ended(e.Peer, time.Now()) })
	c.ReceivedUsefulData = append(c.ReceivedUsefulData, func(e torrent.ReceivedUsefulDataEvent) {
		if conn, ok := e.Peer.TryAsPeerConn(); ok {
			if n, known := d.received(e.Peer, len(e.Message.Piece), time.Now()); known {
				conn.PeerMaxRequests = n
			}
		}
	})
	c.PeerClosed = append(c.PeerClosed, d.closed)
}

// met notes who a peer is.
func (d *depth) met(p *torrent.Peer, m *pp.ExtendedHandshakeMessage) {
	if strings.HasPrefix(m.V, clientName("")) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stock[p] = max(int(pulseReqq*float64(min(m.Reqq, pulseRequests))), firstRequests)
}

// sent notes a request.
func (d *depth) sent(p *torrent.Peer, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.peers[p]
	if m == nil {
		m = &meter{}
		d.peers[p] = m
	}
	if m.out++; m.out == 1 {
		m.began, m.first, m.asked = now, true, 0
	}
	m.asked++
}

// ended notes that a request is no longer outstanding, for whatever reason.
func (d *depth) ended(p *torrent.Peer, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.peers[p]
	if m == nil || m.out == 0 {
		return
	}
	if m.out--; m.out > 0 {
		return
	}
	took := now.Sub(m.began)
	m.busy += took
	switch {
	case m.first || m.waited < pulsePause:
		m.pulse = 0
	case took-m.waited < pulseShare*m.waited:
		m.pulse = min(2*m.asked, pulseRequests)
	}
}

// received notes bytes from a peer and returns how many requests may be
// outstanding there, once that is known.
func (d *depth) received(p *torrent.Peer, bytes int, now time.Time) (requests int, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.peers[p]
	if m == nil {
		return 0, false
	}
	m.received(bytes, now)
	if m.rate == 0 {
		return 0, false
	}
	n := min(max(int(d.wanted(m, now)), minRequests), maxRequests)
	return max(n, min(m.pulse, d.stock[p])), true
}

func (m *meter) received(bytes int, now time.Time) {
	if m.first {
		m.waited = now.Sub(m.began)
	}
	if m.first && m.rate > 0 {
		pause := now.Sub(m.began) - time.Duration(float64(bytes)/m.rate*float64(time.Second))
		m.pause += time.Duration(measureWeight * float64(max(pause, 0)-m.pause))
	}
	m.first = false
	m.bytes += int64(bytes)
	span := m.busy
	if m.out > 0 {
		span += now.Sub(m.began)
	}
	if span < measureEvery {
		return
	}
	rate := float64(m.bytes) / span.Seconds()
	if m.rate == 0 {
		m.rate = rate
	}
	m.rate += measureWeight * (rate - m.rate)
	m.bytes, m.busy = 0, 0
	if m.out > 0 {
		m.busy = -now.Sub(m.began) // the rest of the batch counts from now
	}
}

// wanted is how many requests a batch should have. d.mu is held.
func (d *depth) wanted(m *meter, now time.Time) float64 {
	in := func(t time.Duration) float64 { return m.rate * t.Seconds() / requestLength }
	switch {
	case now.Sub(d.stream) < readerLinger:
		return in(streamQueueTime)
	case now.Sub(d.read) < readerLinger:
		return max(in(min(max(pagePauses*m.pause, pageQueueTime), streamQueueTime)), min(pageRequests, in(pageMost)))
	default:
		return in(min(queueTime*time.Duration(len(d.peers)), maxQueueTime))
	}
}

// demanded notes that somebody waits for a piece now.
func (d *depth) demanded(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.read = now
}

// streaming notes that somebody reads in order.
func (d *depth) streaming(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stream = now
}

// calm is how much others may have under way to here while somebody waits for a
// piece that is behind it: what comes in so long.
func (d *depth) calm(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Sub(d.stream) < readerLinger {
		return streamQueueTime
	}
	return calmTime
}

func (d *depth) closed(p *torrent.Peer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.peers, p)
	delete(d.stock, p)
}
