// Package piece is the vocabulary of pieces: how a release's payload stream is
// cut, which pieces cover a range, and how much somebody wants one.
//
// It is arithmetic only. It must never do I/O, start a goroutine, or import
// anything but the standard library.
package piece

import "fmt"

// Index numbers a piece from 0 (BEP 3).
type Index int

// Range is a half-open run of pieces, [First, End).
type Range struct {
	First, End Index
}

// Len returns the number of pieces in r.
func (r Range) Len() int { return max(0, int(r.End-r.First)) }

// Urgency says why a piece is wanted. Higher goes first.
type Urgency uint8

// The urgencies in rising order.
const (
	None       Urgency = iota // nobody wants it
	Background                // the prefetch that completes the release
	Neighbour                 // close in the stream to something that was read
	Trace                     // a recorded start of the application reads it soon
	Window                    // inside the window read ahead of an open stream
	Demand                    // a reader is blocked on it now
)

var urgencyNames = [...]string{"none", "background", "neighbour", "trace", "window", "demand"}

// String returns the urgency's name in lower case.
func (u Urgency) String() string {
	if int(u) < len(urgencyNames) {
		return urgencyNames[u]
	}
	return fmt.Sprintf("urgency(%d)", uint8(u))
}

// Layout describes how a payload stream of Total bytes is cut into pieces of
// Length bytes; the last piece may be shorter (BEP 3). The zero Layout has no
// pieces.
type Layout struct {
	Total  int64 // bytes in the stream
	Length int64 // bytes in every piece but the last
}

// Count returns the number of pieces.
func (l Layout) Count() int {
	if l.Total <= 0 || l.Length <= 0 {
		return 0
	}
	return int((l.Total-1)/l.Length) + 1
}

// Size returns the length of piece i in bytes, and 0 for a piece that is not
// in the layout.
func (l Layout) Size(i Index) int64 {
	if i < 0 || int(i) >= l.Count() {
		return 0
	}
	return min(l.Length, l.Total-l.Offset(i))
}

// Offset returns where piece i starts in the stream.
func (l Layout) Offset(i Index) int64 { return int64(i) * l.Length }

// At returns the piece that holds the byte at off.
func (l Layout) At(off int64) Index { return Index(off / l.Length) }

// Cover returns the pieces that hold any of the n bytes from off, clipped to
// the stream.
func (l Layout) Cover(off, n int64) Range {
	if off < 0 || n <= 0 || off >= l.Total || l.Length <= 0 {
		return Range{}
	}
	last := off + min(n, l.Total-off) - 1
	return Range{First: l.At(off), End: l.At(last) + 1}
}
