package tree

import "iter"

// WeakWindow is how many bytes at the start of a piece its weak sum covers. No
// piece is shorter than that, but the last of a stream.
const WeakWindow = 4 << 10

// Weak is a sum over WeakWindow bytes that can roll: when the window moves on
// by one byte, Roll gives the sum of the new place at the cost of a few
// instructions. It finds places that are worth a real hash (the idea of rsync
// and zsync); it proves nothing.
//
// It is the polynomial of the bytes at weakBase, modulo 2^64.
type Weak uint64

const (
	weakBase Weak = 0x9e3779b97f4a7c15 // odd, and with its bits well mixed
	weakMix  Weak = 0xd6e8feb86659fd93
)

// weakGone is what a byte counts for when it has left the window.
var weakGone = func() (gone [256]Weak) {
	power := Weak(1)
	for range WeakWindow {
		power *= weakBase
	}
	for b := range gone {
		gone[b] = Weak(b+1) * power
	}
	return gone
}()

// WeakOf returns the sum of a window.
func WeakOf(window []byte) Weak {
	var w Weak
	for _, b := range window {
		w = w*weakBase + Weak(b) + 1
	}
	return w
}

// Roll moves a window of WeakWindow bytes on: out leaves it, in enters.
func (w Weak) Roll(out, in byte) Weak { return w*weakBase + Weak(in) + 1 - weakGone[out] }

// Sum returns the 32 bits that a tree holds. Every byte has a part in each.
func (w Weak) Sum() uint32 { return uint32(w * weakMix >> 32) }

// weakPieces returns how many pieces of a file have weak sums: those that lie
// in it whole, if it is large and starts on a piece boundary. In the other
// pieces files are mixed, and found as whole files.
func (t *Tree) weakPieces(id ID) int64 {
	n := &t.nodes[id]
	if n.size < alignFrom*t.piece || n.offset%t.piece != 0 {
		return 0
	}
	return n.size / t.piece
}

func (t *Tree) weakCount() (count int64) {
	for _, id := range t.order {
		count += t.weakPieces(id)
	}
	return count
}

// WeakSums yields the files that have weak sums, in the order of the stream,
// with the sums of all pieces that lie in the file whole: element i is
// Weak.Sum of the first WeakWindow bytes of the file's piece i. The sums are
// shared with the tree.
func (t *Tree) WeakSums() iter.Seq2[ID, []uint32] {
	return func(yield func(ID, []uint32) bool) {
		rest := t.weak
		for _, id := range t.order {
			n := t.weakPieces(id)
			if n == 0 || len(rest) == 0 {
				continue
			}
			if !yield(id, rest[:n:n]) {
				return
			}
			rest = rest[n:]
		}
	}
}

// WithWeak returns a copy of t, sharing all else, with the weak sums that sum
// returns. It is called for the pieces that have one, by their number in the
// stream, in rising order.
func (t *Tree) WithWeak(sum func(piece int) uint32) *Tree {
	out := *t
	out.weak = make([]uint32, 0, t.weakCount())
	for _, id := range t.order {
		first := t.nodes[id].offset / t.piece
		for i := range t.weakPieces(id) {
			out.weak = append(out.weak, sum(int(first+i)))
		}
	}
	return &out
}
