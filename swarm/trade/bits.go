package trade

import (
	"iter"
	"math/bits"

	"dcfs/cache/piece"
)

// set is a set of pieces. Unlike piece.Set it is intersected word by word.
type set []uint64

func newSet(n int) set { return make(set, (n+63)/64) }

func (s set) has(i piece.Index) bool { return s[i/64]>>(i%64)&1 != 0 }
func (s set) add(i piece.Index)      { s[i/64] |= 1 << (i % 64) }
func (s set) remove(i piece.Index)   { s[i/64] &^= 1 << (i % 64) }

// both yields what is in s and in other, from the word that holds start on and
// then from the beginning.
func (s set) both(other set, start piece.Index) iter.Seq[piece.Index] {
	return func(yield func(piece.Index) bool) {
		for k := range s {
			w := (int(start/64) + k) % len(s)
			for word := s[w] & other[w]; word != 0; word &= word - 1 {
				if !yield(piece.Index(w*64 + bits.TrailingZeros64(word))) {
					return
				}
			}
		}
	}
}
