package trade

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"dcfs/cache/piece"
)

// What is decoded is encoded to the same bytes, whatever they were.
func FuzzDecode(f *testing.F) {
	for _, m := range []Message{
		{Kind: Want, Piece: 3}, {Kind: Ack, Off: 1 << 20}, {Kind: Data, Piece: 9, Off: BlockLength, Data: []byte("x")},
		{Kind: Have, Pieces: []piece.Index{0, 9}},
	} {
		f.Add(m.Encode(), 10)
	}
	f.Add([]byte{byte(Have), 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 10)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		m, err := Decode(b, n)
		if err != nil {
			return
		}
		if int(m.Piece) >= n || slices.ContainsFunc(m.Pieces, func(i piece.Index) bool { return i < 0 || int(i) >= n }) {
			t.Fatalf("a piece that is not there: %v", m)
		}
		if len(m.Pieces) > maxNews || len(m.Data) > BlockLength {
			t.Fatalf("%d pieces and %d bytes in one message", len(m.Pieces), len(m.Data))
		}
		if !bytes.Equal(m.Encode(), b) {
			t.Fatalf("%x became %x", b, m.Encode())
		}
	})
}

// What is sent already is not sent again because it is urgent now.
func TestHurry(t *testing.T) {
	now := time.Unix(1000, 0)
	q := NewQueue(piece.Layout{Total: 4 * BlockLength, Length: BlockLength})
	for i := range piece.Index(3) {
		q.Add(Job{To: 1, Piece: i}, now)
	}
	if b, ok := q.Next(now); !ok || b.Piece != 0 {
		t.Fatalf("%+v, %v", b, ok)
	}
	q.Hurry(1, 0, Urgent, now)
	q.Hurry(1, 2, Urgent, now)
	q.Hurry(2, 1, Urgent, now)
	var order []piece.Index
	for b, ok := q.Next(now); ok; b, ok = q.Next(now) {
		order = append(order, b.Piece)
	}
	if !slices.Equal(order, []piece.Index{2, 1}) {
		t.Errorf("pieces %v", order)
	}
}
