package piece

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestLayout(t *testing.T) {
	l := Layout{Total: 10, Length: 4}
	if l.Count() != 3 || l.Size(0) != 4 || l.Size(2) != 2 || l.Size(3) != 0 || l.Size(-1) != 0 {
		t.Fatalf("count %d sizes %d %d", l.Count(), l.Size(0), l.Size(2))
	}
	for _, c := range []struct {
		off, n int64
		want   Range
	}{
		{0, 1, Range{0, 1}}, {0, 4, Range{0, 1}}, {3, 2, Range{0, 2}}, {4, 4, Range{1, 2}},
		{9, 100, Range{2, 3}}, {10, 1, Range{}}, {0, 0, Range{}}, {-1, 5, Range{}},
		{1, 1<<63 - 1, Range{0, 3}},
	} {
		if got := l.Cover(c.off, c.n); got != c.want {
			t.Errorf("Cover(%d, %d) = %v, want %v", c.off, c.n, got, c.want)
		}
	}
	if (Layout{}).Count() != 0 || (Layout{}).Cover(0, 5).Len() != 0 {
		t.Error("the zero layout has pieces")
	}
}

// The set is compared with a map under random operations.
func TestSetAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(t, "n")
		s, m := NewSet(n), map[Index]bool{}
		for _, op := range rapid.SliceOf(rapid.IntRange(-2*n, 2*n)).Draw(t, "ops") {
			i := Index(op)
			if op < 0 {
				i = -i - 1
				if s.Remove(i) != m[i] {
					t.Fatalf("remove %d", i)
				}
				delete(m, i)
				continue
			}
			fresh := int(i) < n && !m[i]
			if s.Add(i) != fresh {
				t.Fatalf("add %d", i)
			}
			if fresh {
				m[i] = true
			}
		}
		if s.Len() != len(m) || s.Full() != (len(m) == n) {
			t.Fatalf("len %d, want %d", s.Len(), len(m))
		}
		last := Index(-1)
		for i := range s.All() {
			if i <= last || !m[i] {
				t.Fatalf("yielded %d after %d", i, last)
			}
			last = i
		}
		back, ok := SetFromBytes(s.Bytes(), n)
		if !ok || !bytes.Equal(back.Bytes(), s.Bytes()) || back.Len() != s.Len() {
			t.Fatal("the bitfield does not come back")
		}
	})
}

func TestSetFromBytesRefuses(t *testing.T) {
	for _, c := range []struct {
		b []byte
		n int
	}{{nil, 1}, {[]byte{0}, 9}, {[]byte{0x01}, 7}, {[]byte{0}, -1}} {
		if _, ok := SetFromBytes(c.b, c.n); ok {
			t.Errorf("SetFromBytes(%v, %d) was taken", c.b, c.n)
		}
	}
}

func TestUrgencyNames(t *testing.T) {
	for u := None; u <= Demand; u++ {
		if u.String() == "" {
			t.Errorf("urgency %d has no name", u)
		}
	}
	if Urgency(99).String() != "urgency(99)" {
		t.Error(Urgency(99).String())
	}
}
