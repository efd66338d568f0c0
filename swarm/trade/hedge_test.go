package trade

import (
	"testing"
	"time"

	"dcfs/cache/piece"
)

func TestMedian(t *testing.T) {
	var l Latencies
	if l.Median() != 0 {
		t.Error("a median of nothing")
	}
	for i := range 1000 {
		l.Add(time.Duration(i))
	}
	if got := l.Median(); got != 1000-32 {
		t.Errorf("the median of the newest is %d", got)
	}
}

// A piece that somebody waits for is asked of another peer when the first one says
// nothing, and of the first one again only if nobody else has what is missing.
func TestHedge(t *testing.T) {
	layout := piece.Layout{Total: 8 * BlockLength, Length: BlockLength}
	p, now := New(Config{Layout: layout, MaxAsked: 64 << 20}), time.Unix(1e9, 0)
	after := func(d time.Duration) {
		now = now.Add(d)
		p.Clock(now)
		p.Tick()
	}
	after(0)
	for id := PeerID(1); id <= 2; id++ {
		p.Join(id, Who{})
		p.HasAll(id)
	}
	p.Want(5, piece.Demand)
	first := p.asked[5].of.id
	after(minPatience - time.Millisecond)
	if p.asked[5].of.id != first || len(p.Late()) != 0 {
		t.Fatal("others were asked too soon")
	}
	after(time.Millisecond)
	second := p.asked[5].of.id
	if late := p.Late(); second == first || len(late) != 1 || late[0].Of != first || late[0].Piece != 5 {
		t.Fatalf("asked of %d and then of %d; late: %+v", first, second, late)
	}
	if wanted, _ := p.Received(first, 5, 0, BlockLength); wanted {
		t.Error("what the first one sends after all is taken, too")
	}
	p.Want(6, piece.Demand)
	if got := p.asked[6].of.id; got != second {
		t.Errorf("the late one is asked for more: %d", got)
	}
	p.Received(second, 5, 0, BlockLength)
	p.Received(second, 6, 0, BlockLength)
	p.Verified(5, true)
	p.Verified(6, true)
	p.Gone(second)
	p.Want(7, piece.Demand)
	if a := p.asked[7]; a == nil || a.of.id != first {
		t.Error("the late one is not asked although nobody else is there")
	}
	after(time.Minute)
	if a := p.asked[7]; len(p.Late()) != 0 || a == nil && !p.ahead[7] {
		t.Error("the only one is given up")
	}
}

// Who sends other pieces is given more time, and then asked for others only.
func TestHedgeOverdue(t *testing.T) {
	layout := piece.Layout{Total: 64 * BlockLength, Length: BlockLength}
	p, now := New(Config{Layout: layout, MaxAsked: 64 << 20}), time.Unix(1e9, 0)
	p.Clock(now)
	for id := PeerID(1); id <= 2; id++ {
		p.Join(id, Who{})
		p.HasAll(id)
	}
	p.Want(60, piece.Demand)
	first := p.asked[60].of.id
	at := now
	for i := piece.Index(0); p.asked[60].of.id == first; i++ {
		p.Want(i, piece.Background)
		if a := p.asked[i]; a != nil {
			p.Received(first, i, 0, BlockLength)
			p.Verified(i, true)
		}
		now = now.Add(minPatience / 4)
		p.Clock(now)
		p.peers[first].heard = now // it sent something
		p.Tick()
		if i > 40 {
			t.Fatal("it is waited for for ever")
		}
	}
	if waited := now.Sub(at); waited < overdueAfter*minPatience {
		t.Errorf("others were asked after %s", waited)
	}
}
