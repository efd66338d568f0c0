package piece

import (
	"iter"
	"math/bits"
)

// Set is a set of piece indexes below a fixed bound, as a bitmap. It is not
// safe for concurrent use.
type Set struct {
	words []uint64
	bound int
	count int
}

// NewSet returns an empty set for the indexes [0, n).
func NewSet(n int) *Set {
	return &Set{words: make([]uint64, (n+63)/64), bound: n}
}

// Cap returns the bound: one more than the largest index that fits.
func (s *Set) Cap() int { return s.bound }

// Len returns the number of members.
func (s *Set) Len() int { return s.count }

// Full reports whether every index below the bound is a member.
func (s *Set) Full() bool { return s.count == s.bound }

// Has reports whether i is a member; indexes out of bounds never are.
func (s *Set) Has(i Index) bool {
	return i >= 0 && int(i) < s.bound && s.words[i/64]&(1<<(i%64)) != 0
}

// Add makes i a member and reports whether it was not one before. Indexes out
// of bounds are ignored.
func (s *Set) Add(i Index) bool {
	if i < 0 || int(i) >= s.bound || s.Has(i) {
		return false
	}
	s.words[i/64] |= 1 << (i % 64)
	s.count++
	return true
}

// Remove takes i out and reports whether it was a member.
func (s *Set) Remove(i Index) bool {
	if !s.Has(i) {
		return false
	}
	s.words[i/64] &^= 1 << (i % 64)
	s.count--
	return true
}

// All yields the members in rising order. The set must not change meanwhile.
func (s *Set) All() iter.Seq[Index] {
	return func(yield func(Index) bool) {
		for w, word := range s.words {
			for word != 0 {
				if !yield(Index(w*64 + bits.TrailingZeros64(word))) {
					return
				}
				word &= word - 1
			}
		}
	}
}

// Clone returns a copy.
func (s *Set) Clone() *Set {
	return &Set{words: append([]uint64(nil), s.words...), bound: s.bound, count: s.count}
}

// Bytes returns the set as a BEP 3 bitfield: the high bit of the first byte is
// index 0, spare bits are zero.
func (s *Set) Bytes() []byte {
	out := make([]byte, (s.bound+7)/8)
	for i := range s.All() {
		out[i/8] |= 0x80 >> (i % 8)
	}
	return out
}

// SetFromBytes reads a BEP 3 bitfield for n pieces. It returns false when the
// length is wrong or a spare bit is set.
func SetFromBytes(b []byte, n int) (*Set, bool) {
	if n < 0 || len(b) != (n+7)/8 {
		return nil, false
	}
	if n%8 != 0 && b[len(b)-1]&(0xff>>(n%8)) != 0 {
		return nil, false
	}
	s := NewSet(n)
	for i := range Index(n) {
		if b[i/8]&(0x80>>(i%8)) != 0 {
			s.Add(i)
		}
	}
	return s, true
}
