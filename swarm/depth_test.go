package swarm

import (
	"testing"
	"time"

	"github.com/anacrolix/torrent"
)

// feed lets a peer send at a rate for a while and returns what it may be asked
// ahead in the end.
func feed(d *depth, p *torrent.Peer, now *time.Time, bytesPerSecond float64, during time.Duration) int {
	last := 0
	for end := now.Add(during); now.Before(end); *now = now.Add(time.Millisecond) {
		if n, changed := d.received(p, int(bytesPerSecond/1000), *now); changed {
			last = n
		}
	}
	return last
}

func TestDepthFollowsTheRate(t *testing.T) {
	d, p, now := newDepth(), &torrent.Peer{}, time.Now()
	if n := feed(d, p, &now, 1e9, time.Second); n != maxRequests {
		t.Errorf("at 1 GB/s: %d requests, want %d", n, maxRequests)
	}
	want := int(3e6 * queueTime.Seconds() / requestLength)
	if n := feed(d, p, &now, 3e6, 2*time.Second); n < want-1 || n > want+1 {
		t.Errorf("at 3 MB/s: %d requests, want about %d", n, want)
	}
	d.demanded(now)
	want = int(3e6 * readerQueueTime.Seconds() / requestLength)
	if n := feed(d, p, &now, 3e6, readerLinger-100*time.Millisecond); n < want-1 || n > want+1 {
		t.Errorf("with a reader: %d requests, want about %d", n, want)
	}
	if n := feed(d, p, &now, 1e3, 3*time.Second); n != minRequests {
		t.Errorf("at 1 kB/s: %d requests, want %d", n, minRequests)
	}
}

// A pause in which nothing was asked says nothing about the peer's rate.
func TestDepthIgnoresPauses(t *testing.T) {
	d, p, now := newDepth(), &torrent.Peer{}, time.Now()
	before := feed(d, p, &now, 10e6, time.Second)
	now = now.Add(time.Minute)
	if after := feed(d, p, &now, 10e6, 200*time.Millisecond); after < before-1 {
		t.Errorf("%d requests before the pause, %d after", before, after)
	}
	d.closed(p)
	if len(d.peers) != 0 {
		t.Error("a closed peer is remembered")
	}
}
