package swarm

import (
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"
)

// feed lets a peer answer one request after the other at a rate for a while and
// returns what it may be asked ahead in the end.
func feed(d *depth, p *torrent.Peer, now *time.Time, bytesPerSecond float64, during time.Duration) int {
	last := 0
	for end := now.Add(during); now.Before(end); {
		d.sent(p, *now)
		*now = now.Add(time.Millisecond)
		d.ended(p, *now)
		if n, known := d.received(p, int(bytesPerSecond/1000), *now); known {
			last = n
		}
	}
	return last
}

func TestDepthFollowsTheRate(t *testing.T) {
	const rate = 12.5e6
	requests := func(d time.Duration) int { return int(rate * d.Seconds() / requestLength) }
	d, p, now := newDepth(), &torrent.Peer{}, time.Now()
	if n := feed(d, p, &now, 1e9, time.Second); n != maxRequests {
		t.Errorf("at 1 GB/s: %d requests, want %d", n, maxRequests)
	}
	near := func(what string, n, want int) {
		t.Helper()
		if n < want-1 || n > want+1 {
			t.Errorf("%s: %d requests, want about %d", what, n, want)
		}
	}
	near("nobody reads", feed(d, p, &now, rate, 2*time.Second), requests(queueTime))
	d.demanded(now)
	near("a page is read", feed(d, p, &now, rate, readerLinger-100*time.Millisecond), pageRequests)
	d.streaming(now)
	near("a file is read", feed(d, p, &now, rate, readerLinger-100*time.Millisecond), requests(streamQueueTime))
	for range 9 {
		d.sent(&torrent.Peer{}, now)
	}
	near("many peers", feed(d, p, &now, rate, 2*time.Second), requests(maxQueueTime))
	if n := feed(d, p, &now, 1e3, 3*time.Second); n != minRequests {
		t.Errorf("at 1 kB/s: %d requests, want %d", n, minRequests)
	}
}

// A pause in which nothing was asked says nothing about the peer's rate.
func TestDepthIgnoresPauses(t *testing.T) {
	d, p, now := newDepth(), &torrent.Peer{}, time.Now()
	before := feed(d, p, &now, 10e6, time.Second)
	now = now.Add(time.Minute)
	if after := feed(d, p, &now, 10e6, 200*time.Millisecond); after != before {
		t.Errorf("%d requests before the pause, %d after", before, after)
	}
	d.closed(p)
	if len(d.peers) != 0 {
		t.Error("a closed peer is remembered")
	}
	if _, known := d.received(p, 1, now); known {
		t.Error("something is known of a closed peer")
	}
}

// A peer that lets every batch wait is asked for longer ones by readers of pages,
// too, so that not all of the link is given up.
func TestDepthOfPagesFollowsThePause(t *testing.T) {
	const rate, wait = 125e6, 5 * time.Millisecond
	d, p, now := newDepth(), &torrent.Peer{}, time.Now()
	last := 0
	for range 100 { // batches of 16 requests, sent in 2 ms
		d.demanded(now)
		for range 16 {
			d.sent(p, now)
		}
		now = now.Add(wait)
		for range 16 {
			now = now.Add(time.Duration(requestLength / rate * 1e9))
			d.ended(p, now)
			last, _ = d.received(p, requestLength, now)
		}
	}
	if fill := int(rate * pageQueueTime.Seconds() / requestLength); last <= fill {
		t.Errorf("%d requests, want more than the %d of a peer that answers at once", last, fill)
	}
}

// A stock client that answers twice a second is kept busy all the same; a dcfs
// host that is late is not asked for more.
func TestDepthFillsPulses(t *testing.T) {
	const rate, wait = 10e6, 500 * time.Millisecond
	for client, want := range map[string]int{"Transmission 3.00": 192, "dcfs/1": minRequests} {
		d, p, now := newDepth(), &torrent.Peer{}, time.Now()
		d.met(p, &pp.ExtendedHandshakeMessage{V: client, Reqq: 256})
		ahead := firstRequests
		for range 10 {
			for range ahead {
				d.sent(p, now)
			}
			now = now.Add(wait)
			asked := ahead
			for range asked {
				now = now.Add(time.Duration(requestLength / rate * 1e9))
				d.ended(p, now)
				if n, known := d.received(p, requestLength, now); known {
					ahead = n
				}
			}
		}
		if client[0] == 'T' && ahead != want || client[0] == 'd' && ahead > firstRequests {
			t.Errorf("%s: %d requests, want %d", client, ahead, want)
		}
	}
}
