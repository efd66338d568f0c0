package trade

import (
	"testing"
	"time"

	"dcfs/cache/piece"
)

// Who asks for many pieces is not sent more of them than one who asks for few.
func TestQueueIsFair(t *testing.T) {
	layout := piece.Layout{Total: 64 * BlockLength, Length: BlockLength}
	q, now := NewQueue(layout), time.Unix(1e9, 0)
	for i := range piece.Index(20) {
		q.Add(Job{To: 1, Piece: i}, now)
	}
	for i := range piece.Index(4) {
		q.Add(Job{To: 2, Piece: i}, now)
	}
	sent := map[PeerID]int{}
	for range 8 {
		b, ok := q.Next(now)
		if !ok {
			t.Fatal("nothing to send")
		}
		sent[b.To]++
		now = now.Add(time.Millisecond)
		q.Acked(b.To, b.Len, now)
	}
	if sent[1] != 4 || sent[2] != 4 {
		t.Errorf("sent %v, want four pieces to each", sent)
	}
}

// A host asks for no more than comes in a second, however many could give it.
func TestAsksForWhatComesSoon(t *testing.T) {
	layout := piece.Layout{Total: 1000 << 16, Length: 1 << 16}
	p, now := New(Config{Layout: layout, MaxAsked: 64 << 20}), time.Unix(1e9, 0)
	p.Clock(now)
	for i := range piece.Index(layout.Count()) {
		p.Want(i, piece.Background)
	}
	for id := range PeerID(60) {
		p.Join(id+1, Who{})
		p.HasAll(id + 1)
	}
	if n := len(p.asked); n != askPieces {
		t.Errorf("%d pieces are asked for before anything came, want %d", n, askPieces)
	}
	const aSecond = 50 // pieces
	for range 300 {    // six seconds
		now = now.Add(time.Second / aSecond)
		p.Clock(now)
		for i, a := range p.asked {
			p.Received(a.of.id, i, 0, layout.Length)
			p.Verified(i, true)
			break
		}
		p.Tick()
	}
	if n := len(p.asked); n < aSecond*8/10 || n > aSecond*12/10 {
		t.Errorf("%d pieces are asked for where %d come in a second", n, aSecond)
	}
}
