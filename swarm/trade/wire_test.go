package trade

import (
	"bytes"
	"slices"
	"testing"

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
