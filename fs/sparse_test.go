package fs

import (
	"testing"

	"dcfs/fs/tree"
)

func TestSeek(t *testing.T) {
	none := int64(-1)
	for _, c := range []struct {
		name       string
		holes      []tree.Hole
		off        int64
		data, hole int64
	}{
		{"no holes", nil, 3, 3, 100},
		{"last byte", nil, 99, 99, 100},
		{"end", nil, 100, none, none},
		{"behind", []tree.Hole{{Offset: 90, Length: 10}}, 101, none, none},
		{"negative", nil, -1, none, none},
		{"all", []tree.Hole{{Offset: 0, Length: 100}}, 5, none, 5},
		{"before", []tree.Hole{{Offset: 10, Length: 10}}, 9, 9, 10},
		{"in", []tree.Hole{{Offset: 10, Length: 10}}, 19, 20, 19},
		{"after", []tree.Hole{{Offset: 10, Length: 10}}, 20, 20, 100},
		{"between", []tree.Hole{{Offset: 10, Length: 10}, {Offset: 50, Length: 50}}, 30, 30, 50},
		{"last", []tree.Hole{{Offset: 10, Length: 10}, {Offset: 50, Length: 50}}, 60, none, 60},
	} {
		e := tree.Entry{Size: 100, Holes: c.holes}
		for _, s := range []struct {
			kind string
			seek func(*tree.Entry, int64) (int64, bool)
			want int64
		}{{"data", seekData, c.data}, {"hole", seekHole, c.hole}} {
			got, ok := s.seek(&e, c.off)
			if !ok {
				got = none
			}
			if got != s.want {
				t.Errorf("%s: %s from %d at %d, want %d", c.name, s.kind, c.off, got, s.want)
			}
		}
	}
}
