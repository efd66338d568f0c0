package trade

import (
	"slices"
	"testing"
	"time"

	"dcfs/cache/piece"
)

// pieces lists the pieces of the blocks that a queue sends without an answer.
func pieces(q *Queue, now time.Time) (out []piece.Index) {
	for b, ok := q.Next(now); ok; b, ok = q.Next(now) {
		if len(out) == 0 || out[len(out)-1] != b.Piece {
			out = append(out, b.Piece)
		}
	}
	return out
}

// What is read soon goes before the rest that goes to the same host, and not before
// what goes to others.
func TestSoonGoesBeforeTheRestOfOne(t *testing.T) {
	now := time.Unix(1e9, 0)
	q := NewQueue(piece.Layout{Total: 64 * BlockLength, Length: BlockLength})
	q.limit = 64 * BlockLength * slots
	q.Add(Job{To: 1, Piece: 1}, now)
	q.Add(Job{To: 2, Piece: 2}, now)
	q.Add(Job{To: 1, Piece: 3, Degree: Soon}, now)
	q.Add(Job{To: 1, Piece: 4, Degree: Urgent}, now)
	q.Add(Job{To: 1, Piece: 5, Degree: Soon}, now)
	q.Hurry(2, 9, Soon, now) // it is not there
	if got := pieces(q, now); !slices.Equal(got, []piece.Index{4, 2, 3, 5, 1}) && !slices.Equal(got, []piece.Index{4, 3, 2, 5, 1}) {
		t.Errorf("sent %v", got)
	}
}

// A piece that is under way gives way to one that goes before it.
func TestSoonOvertakes(t *testing.T) {
	now := time.Unix(1e9, 0)
	q := NewQueue(piece.Layout{Total: 64 * BlockLength, Length: 4 * BlockLength})
	q.Add(Job{To: 1, Piece: 0}, now)
	if b, ok := q.Next(now); !ok || b.Piece != 0 {
		t.Fatalf("%+v, %v", b, ok)
	}
	q.Add(Job{To: 1, Piece: 7, Degree: Soon}, now)
	if got := pieces(q, now); !slices.Equal(got, []piece.Index{7, 0}) {
		t.Errorf("sent %v", got)
	}
}

// Urgent pieces come one after the other, not all of them late.
func TestUrgentInTurn(t *testing.T) {
	now := time.Unix(1e9, 0)
	q := NewQueue(piece.Layout{Total: 64 * BlockLength, Length: 2 * BlockLength})
	for i := range piece.Index(5) {
		q.Add(Job{To: PeerID(1 + i%2), Piece: i, Degree: Urgent}, now)
	}
	if got := pieces(q, now); !slices.Equal(got, []piece.Index{0, 1, 2, 3, 4}) {
		t.Errorf("sent %v", got)
	}
}

// Who asks for calm gets no more than that, of the rest, and nothing of it when it
// said so; after a while as much as before. Tick says that there is something to send.
func TestQueueKeepsCalm(t *testing.T) {
	for _, test := range []struct {
		bytes int64
		want  int // blocks of the rest under way
	}{{0, 0}, {1, 1}, {2 * BlockLength, 2}, {1 << 40, int(firstFlight / BlockLength)}} {
		now := time.Unix(1e9, 0)
		q := NewQueue(piece.Layout{Total: 640 * BlockLength, Length: BlockLength})
		for i := range piece.Index(64) {
			q.Add(Job{To: 1, Piece: i}, now)
		}
		q.Calm(1, test.bytes, now)
		if got := len(pieces(q, now)); got != test.want {
			t.Errorf("calm of %d bytes: %d blocks, want %d", test.bytes, got, test.want)
		}
		q.Add(Job{To: 1, Piece: 100, Degree: Urgent}, now)
		if got := pieces(q, now); test.want < firstFlight/BlockLength && !slices.Equal(got, []piece.Index{100}) {
			t.Errorf("calm of %d bytes: an urgent piece is not sent: %v", test.bytes, got)
		}
		q.Acked(1, int64(test.want+1)*BlockLength, now)
		now = now.Add(calmLinger)
		if !q.Tick(now) || len(pieces(q, now)) == 0 {
			t.Errorf("calm of %d bytes: nothing is sent afterwards", test.bytes)
		}
	}
}

// reader is the plan of a host that fetches from two others at rate bytes a second,
// one block of each in turn, and demands a piece.
func reader(t *testing.T, rate int) (*Plan, func(piece.Index), *time.Time) {
	t.Helper()
	layout := piece.Layout{Total: 4000 * BlockLength, Length: BlockLength}
	p, now := New(Config{Layout: layout, MaxAsked: 64 << 20}), time.Unix(1e9, 0)
	p.Clock(now)
	for i := range piece.Index(layout.Count()) {
		p.Want(i, piece.Background)
	}
	for id := PeerID(1); id <= 2; id++ {
		p.Join(id, Who{})
		p.HasAll(id)
	}
	come := func(i piece.Index) {
		now = now.Add(time.Duration(float64(BlockLength) / float64(rate) * float64(time.Second)))
		p.Clock(now)
		p.Received(p.asked[i].of.id, i, 0, BlockLength)
		p.Verified(i, true)
		p.Tick()
	}
	for now.Sub(time.Unix(1e9, 0)) < 500*time.Millisecond {
		for i, a := range p.asked {
			if a.degree == Rest {
				come(i)
				break
			}
		}
	}
	p.Take()
	return p, come, &now
}

func calms(p *Plan) (out []int64) {
	for _, m := range p.Take() {
		if m.Kind == Calm {
			out = append(out, m.Off)
		}
	}
	return out
}

// On a slow link the others send nothing of the rest while somebody waits, and go on
// when the piece is here; on a fast one they keep little under way. Nobody holds the
// rest up for ever.
func TestCalm(t *testing.T) {
	p, come, now := reader(t, 2<<20)
	p.Want(3999, piece.Demand)
	p.Calm(2 * time.Millisecond)
	if got := calms(p); !slices.Equal(got, []int64{0, 0}) {
		t.Errorf("while somebody waits: %d", got)
	}
	come(3999)
	if got := calms(p); len(got) != 2 || got[0] < 1 || got[0] > BlockLength {
		t.Errorf("when the piece is here: %d", got)
	}
	p.Want(3998, piece.Demand)
	held := 0
	for k := range 500 { // ten seconds in which it does not come
		*now = now.Add(20 * time.Millisecond)
		p.Clock(*now)
		if k%10 == 0 {
			p.Calm(2 * time.Millisecond)
		}
		p.Tick()
		if p.calm.hold {
			held++
		}
	}
	if held == 0 || held > 120 { // it is asked of both
		t.Errorf("the rest was held up in %d of 500 ticks", held)
	}

	p, _, _ = reader(t, 100<<20)
	p.Want(3999, piece.Demand)
	p.Calm(2 * time.Millisecond)
	got := calms(p)
	if want := int64(100<<20) / 500 / 2; len(got) != 2 || got[0] < want/2 || got[0] > want*11/10 {
		t.Errorf("on a fast link: %d, want about %d", got, want)
	}
}
