package tree

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// A rolled window has the sum of a fresh one, and every byte counts.
func TestWeakRolls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "steps")
		b := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 1, 600).Draw(t, "bytes"), WeakWindow+n)[:WeakWindow+n]
		w := WeakOf(b[:WeakWindow])
		for i := range n {
			w = w.Roll(b[i], b[i+WeakWindow])
		}
		if want := WeakOf(b[n:]); w != want {
			t.Fatalf("rolled %x, fresh %x", w, want)
		}
		b[n+rapid.IntRange(0, WeakWindow-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		if WeakOf(b[n:]).Sum() == w.Sum() {
			t.Fatal("another window has the same sum")
		}
	})
}

// weakTree has two files with weak sums, one too small and one of a stream
// position that is no piece's.
func weakTree(t *testing.T) *Tree {
	return mustBuild(t, Plan{PieceLength: MinPieceLength},
		file("a", 4*MinPieceLength+1), file("b", 3*MinPieceLength), file("c", 6*MinPieceLength))
}

func TestWeakSumsComeBack(t *testing.T) {
	tr := weakTree(t)
	plain := Encode(tr)
	var asked []int
	with := tr.WithWeak(func(i int) uint32 { asked = append(asked, i); return uint32(1000 + i) })
	// a: pieces 0–3 and one byte; b behind it; c at the next boundary, 8.
	want := map[string][]uint32{"a": {1000, 1001, 1002, 1003}, "c": {1008, 1009, 1010, 1011, 1012, 1013}}
	back, err := Decode(Encode(with))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []*Tree{with, back} {
		got := 0
		for id, sums := range x.WeakSums() {
			if w := want[x.Path(id)]; len(w) != len(sums) || w[0] != sums[0] || w[len(w)-1] != sums[len(w)-1] {
				t.Errorf("%s: %v, want %v", x.Path(id), sums, w)
			}
			got++
		}
		if got != len(want) {
			t.Errorf("%d files have weak sums", got)
		}
	}
	if len(asked) != 10 || !bytes.Equal(Encode(back), Encode(with)) {
		t.Errorf("asked for %v", asked)
	}
	for range tr.WeakSums() {
		t.Error("the first tree changed")
	}
	if !bytes.Equal(Encode(tr), plain) || len(Encode(with)) != len(plain)+4*len(asked) {
		t.Error("the sums cost something else than 4 bytes each")
	}
	whole := Encode(with)
	for _, n := range []int{1, 4, 8, 39, 41} {
		if _, err := Decode(whole[:len(whole)-n]); !errors.Is(err, ErrInvalid) {
			t.Errorf("without its last %d bytes: %v", n, err)
		}
	}
	if _, err := Decode(append(whole, 0, 0, 0, 0)); !errors.Is(err, ErrInvalid) {
		t.Errorf("with a sum too many: %v", err)
	}
}

// Weak sums are covered by the info-hash, too: they have to be the same with
// every version of dcfs.
func TestWeakGolden(t *testing.T) {
	const want = "76593d86ad33fc79fa88adca357974b2de0fd51b44a430fae18a449a22402697"
	var window [WeakWindow]byte
	for i := range window {
		window[i] = byte(i * i)
	}
	with := weakTree(t).WithWeak(func(i int) uint32 { window[0] = byte(i); return WeakOf(window[:]).Sum() })
	sum := sha256.Sum256(with.digestsOnly())
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("weak sums %s, want %s", got, want)
	}
}

func (t *Tree) digestsOnly() []byte {
	_, digests := columnsOf(t)
	return digests
}
