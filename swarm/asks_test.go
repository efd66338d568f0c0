package swarm

import (
	"strings"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"dcfs/cache/piece"
)

func blockOf(i, begin int) torrent.Request {
	var r torrent.Request
	r.Index, r.Begin, r.Length = pp.Integer(i), pp.Integer(begin), requestLength
	return r
}

func TestAsksRememberWhoWasAsked(t *testing.T) {
	a, p, q, now := newAsks(), &torrent.Peer{}, &torrent.Peer{}, time.Now()
	a.asked(p, "p:1", blockOf(3, 0), now)
	a.asked(p, "p:1", blockOf(3, requestLength), now.Add(time.Second))
	a.asked(q, "q:1", blockOf(3, 2*requestLength), now.Add(2*time.Second))
	got := a.of(3)
	if len(got) != 2 || got[0].Peer != "p:1" || got[0].Blocks != 2 || !got[0].Since.Equal(now) || !got[0].Dropped.IsZero() || got[1].Blocks != 1 {
		t.Errorf("asked %+v", got)
	}
	a.answered(p, blockOf(3, 0), now.Add(3*time.Second))
	a.ended(p, blockOf(3, 0), now.Add(3*time.Second))
	a.ended(p, blockOf(3, requestLength), now.Add(4*time.Second)) // taken back
	if got := a.of(3)[0]; got.Blocks != 0 || !got.Dropped.Equal(now.Add(4*time.Second)) {
		t.Errorf("after all requests ended: %+v", got)
	}
	if a.times.Median() != 3*time.Second || len(a.sent) != 1 {
		t.Errorf("median %v, outstanding %d", a.times.Median(), len(a.sent))
	}
	a.done(3)
	a.ended(q, blockOf(3, 2*requestLength), now) // late, harmless
	a.closed(p)
	if len(a.of(3)) != 0 || len(a.sent) != 0 || len(a.peers) != 0 || len(a.pieces) != 0 {
		t.Errorf("left: %+v", a)
	}
}

func TestAsksAreBounded(t *testing.T) {
	a := newAsks()
	for range 5 * maxAsks {
		a.asked(&torrent.Peer{}, "x", blockOf(0, 0), time.Now())
	}
	if got := len(a.of(0)); got != maxAsks {
		t.Errorf("%d peers are remembered", got)
	}
}

// Explain names who was asked while a piece is missing, and forgets it after.
func TestExplain(t *testing.T) {
	rel := newRelease(t, 8<<20, 8<<20) // more than the first burst
	h := newHost(t, rel, false, NodeConfig{}).joinPeers()
	if got := h.swarm.Explain(0); !strings.Contains(got, "nobody was asked: 0 peers known, 0 connected") {
		t.Error(got)
	}
	newHost(t, rel, true, NodeConfig{Gate: rated(1<<10, 0)}).joinPeers(h)
	h.swarm.Want(rel.all(), piece.Demand)
	eventually(t, func() bool { return len(h.swarm.Asked(0)) > 0 }, func() string { return h.swarm.Explain(0) })
	if a := h.swarm.Asked(0)[0]; !strings.Contains(h.swarm.Explain(0), a.Peer+" since ") || time.Since(a.Since) > patience {
		t.Errorf("%+v: %s", a, h.swarm.Explain(0))
	}
}

func TestForgotten(t *testing.T) {
	a, p, now := newAsks(), new(torrent.Peer), time.Now()
	r := torrent.Request{Index: 3, ChunkSpec: torrent.ChunkSpec{Length: 16 << 10}}
	is := func(when time.Time, want bool) {
		t.Helper()
		if i, ok := a.forgotten(when); ok != want || ok && i != 3 {
			t.Errorf("piece %d, %v; want %v", i, ok, want)
		}
	}
	is(now, false)
	a.asked(p, "a:1", r, now)
	is(now.Add(time.Hour), false)
	a.ended(p, r, now)
	is(now, false)
	is(now.Add(forgottenAfter), true)
	is(now.Add(forgottenAfter), false)
	is(now.Add(2*forgottenAfter), true)
	a.asked(p, "a:1", r, now)
	is(now.Add(time.Hour), false)
	a.ended(p, r, now)
	a.done(3)
	is(now.Add(time.Hour), false)
}
