package trade

import (
	"testing"
	"time"

	"dcfs/cache/piece"
)

// Peers that take what they are sent and acknowledge nothing hold nobody up,
// however many they are and however urgent they call it.
func TestSilentReceiversHoldNobodyUp(t *testing.T) {
	for _, d := range []Degree{Rest, Soon, Urgent} {
		q := NewQueue(piece.Layout{Total: 400 << 20, Length: 256 << 10})
		now := time.Unix(1e9, 0)
		for id := PeerID(1); id <= 2*slots; id++ {
			for i := range piece.Index(2 * maxQueued) {
				q.Add(Job{To: id, Piece: i, Degree: d}, now)
			}
		}
		for range 1000 {
			q.Next(now)
		}
		now = now.Add(silence + time.Second)
		q.Tick(now)
		const good = PeerID(99)
		q.Add(Job{To: good, Piece: 7}, now)
		var came int64
		for range 1000 {
			b, ok := q.Next(now)
			if ok && b.To == good {
				came += b.Len
				q.Acked(good, b.Len, now)
				continue
			}
			if now = now.Add(time.Second); now.Unix()%4 == 0 {
				q.Tick(now)
			}
		}
		if came != 256<<10 {
			t.Errorf("degree %v: %d bytes were sent to a peer that takes them", d, came)
		}
		if most := 2 * slots * (maxQueued + slots + int(q.limit/BlockLength)); len(q.waiting)+len(q.active) > most {
			t.Errorf("degree %v: %d pieces are queued", d, len(q.waiting)+len(q.active))
		}
	}
}

// A peer that calls everything urgent has only so much before the others.
func TestEverythingIsUrgent(t *testing.T) {
	q := NewQueue(piece.Layout{Total: 400 << 20, Length: 64 << 10})
	now := time.Unix(1e9, 0)
	for i := range piece.Index(200) {
		q.Add(Job{To: 1, Piece: i, Degree: Urgent}, now)
	}
	q.Add(Job{To: 2, Piece: 5}, now)
	for n := 0; ; n++ {
		b, ok := q.Next(now)
		if !ok || n > 4*maxUrgent {
			t.Fatalf("the other waits after %d blocks", n)
		}
		if b.To == 2 {
			return
		}
		q.Acked(b.To, b.Len, now)
	}
}

// Hosts that say that they have everything and never answer cost a little time:
// they are asked last.
func TestMutePeers(t *testing.T) {
	const pieces = 200
	w := newNetwork(t, 10, pieces)
	for _, mute := range []int{3, 7} {
		w.hosts[mute].dead = true
		for k, h := range w.hosts {
			if k != mute {
				h.plan.HasAll(PeerID(mute + 1))
			}
		}
	}
	ticks := w.finish(4000)
	t.Logf("%d ticks, %d without mute peers", ticks, pieces*2/w.hosts[0].rate)
	if most := int((offerFirst + dataTimeout) / simTick); ticks > most {
		t.Errorf("it took %d ticks; after %d nobody should be asked who is mute", ticks, most)
	}
}

// steeringPlan is the plan of a host that steers and has n pieces.
func steeringPlan(n int) *Plan {
	p := New(Config{Layout: piece.Layout{Total: int64(n) << 16, Length: 1 << 16}, Steer: true})
	for i := range piece.Index(n) {
		p.Have(i, true)
	}
	return p
}

// TestClaims: a host that steers believes that a piece is out of who was offered it,
// or of a third of all peers, and not of two that say that they have everything.
func TestClaims(t *testing.T) {
	const n = 40
	p := steeringPlan(n)
	for id := PeerID(1); id <= 9; id++ {
		p.Join(id, Who{})
	}
	p.HasAll(1) // also what it is offered meanwhile
	p.HasAll(2)
	if left := p.steer.left; left != n {
		t.Errorf("%d of %d pieces are not out, and none was sent", left, n)
	}
	offered := 0
	for _, m := range p.Take() {
		if m.Kind == Open && m.To > 2 {
			t.Errorf("%+v", m)
		}
		if m.Kind == Offer && m.To > 2 {
			offered++
			p.Sent(m.To, 1<<20)
			p.Has(m.To, m.Piece)
		}
	}
	if left := p.steer.left; offered == 0 || left != n-offered {
		t.Errorf("%d pieces were taken, and %d of %d are not out", offered, left, n)
	}
	for _, m := range p.Take() {
		if m.Kind == Offer && m.To <= 2 {
			t.Errorf("who has everything is offered: %+v", m)
		}
	}
	p.HasAll(3)
	if left := p.steer.left; left != 0 {
		t.Errorf("a third of all peers have everything, and %d pieces are not out", left)
	}
}

// TestDeclines: a peer that wants nothing of what it is offered is offered little,
// and not never again.
func TestDeclines(t *testing.T) {
	p, now := steeringPlan(40), time.Unix(1e9, 0)
	p.Clock(now)
	p.Join(1, Who{})
	seconds := make([]int, 20) // offers in each
	for k := range seconds {
		for range 50 {
			now = now.Add(time.Second / 50)
			p.Clock(now)
			p.Tick()
			for all := p.Take(); len(all) > 0; all = p.Take() {
				for _, m := range all {
					if m.Kind == Offer {
						seconds[k]++
						p.Rejected(1, m.Piece)
					}
				}
				if seconds[k] > 1000 {
					t.Fatal("there is no end")
				}
			}
		}
		if most := 2 * (declinesFirst + offerLeast); k > 2 && (seconds[k-1]+seconds[k] == 0 || seconds[k] > most) {
			t.Errorf("second %d: %d offers", k, seconds[k])
		}
	}
}

// TestHadBefore: two hosts come one after the other and have half of the release
// from elsewhere, which is not believed. The first gets the rest and leaves; so that
// the second gets it, too, it may ask for anything.
func TestHadBefore(t *testing.T) {
	const n = 40
	p := steeringPlan(n)
	come := func(id PeerID) (offered, opened int) {
		p.Join(id, Who{})
		for i := range piece.Index(n / 2) {
			p.Has(id, i)
		}
		p.Sent(id, 1<<30)
		p.Tick()
		for all := p.Take(); len(all) > 0; all = p.Take() {
			for _, m := range all {
				switch m.Kind {
				case Open:
					opened++
				case Offer:
					offered++
					p.Has(id, m.Piece)
				}
			}
		}
		p.Gone(id)
		return offered, opened
	}
	if offered, _ := come(1); offered < n/2 {
		t.Errorf("the first host was offered %d pieces", offered)
	}
	if offered, opened := come(2); offered == 0 && opened == 0 {
		t.Error("the second host gets nothing")
	}
}
