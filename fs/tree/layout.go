package tree

import (
	"fmt"
	"math"
	"path"
	"slices"
)

// Piece lengths: the bounds that publish accepts, and how large a payload each
// of the defaults serves.
const (
	MinPieceLength = 16 << 10
	MaxPieceLength = 16 << 20

	// alignFrom is how many pieces a file must have before it starts on a
	// piece boundary. Alignment lets an unchanged file keep its pieces in the
	// next release; from four pieces on it costs at most an eighth of the
	// file on average, and nothing for the many small ones.
	alignFrom = 4
)

// DefaultPieceLength returns the piece length for a payload of so many bytes.
// Small pieces make cold reads fast and go on to other hosts soon, large ones
// keep the metainfo small.
func DefaultPieceLength(bytes int64) int64 {
	switch {
	case bytes <= 128<<20:
		return 64 << 10
	case bytes <= 1<<30:
		return 256 << 10
	case bytes <= 16<<30:
		return 1 << 20
	default:
		return 4 << 20
	}
}

// ValidPieceLength returns an error unless n is a power of two within bounds.
func ValidPieceLength(n int64) error {
	if n < MinPieceLength || n > MaxPieceLength || n&(n-1) != 0 {
		return fmt.Errorf("piece length %d: want a power of two from %d to %d", n, MinPieceLength, MaxPieceLength)
	}
	return nil
}

// layOut gives every inode with content its place in the stream: hot files in
// the given order, then the others directory by directory, large files on a
// piece boundary. A release without any content gets one byte of padding,
// because BitTorrent v1 has no empty payload.
func (t *Tree) layOut(plan Plan) error {
	t.piece = plan.PieceLength
	if t.piece == 0 {
		t.piece = DefaultPieceLength(t.payload())
	}
	if err := ValidPieceLength(t.piece); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	t.order = t.hotFirst(plan.Hot)
	var off int64
	for _, id := range t.order {
		n := &t.nodes[id]
		if n.size >= alignFrom*t.piece {
			off = (off + t.piece - 1) / t.piece * t.piece
		}
		if n.size > math.MaxInt64-t.piece-off {
			return fmt.Errorf("%w: the sizes of all files together overflow at %q", ErrInvalid, t.Path(id))
		}
		n.offset = off
		off += n.size
	}
	t.total = max(off, 1)
	return nil
}

func (t *Tree) payload() int64 {
	var sum int64
	for i := range t.nodes {
		if n := &t.nodes[i]; n.kind() == File && n.inode == ID(i) && n.size <= math.MaxInt64-sum {
			sum += n.size
		}
	}
	return sum
}

// hotFirst returns the inodes with content in the order of the stream.
func (t *Tree) hotFirst(hot []string) []ID {
	var order []ID
	seen := make(map[ID]bool, len(hot))
	add := func(id ID) {
		id = t.nodes[id].inode
		if n := &t.nodes[id]; n.kind() == File && n.size > 0 && !seen[id] {
			seen[id] = true
			order = append(order, id)
		}
	}
	for _, p := range hot {
		if id, ok := t.Find(path.Clean("/" + p)); ok {
			add(id)
		}
	}
	t.walk(Root, add)
	return slices.Clip(order)
}

// walk visits the files of dir, then its subdirectories, depth first.
func (t *Tree) walk(dir ID, visit func(ID)) {
	first, count := t.Children(dir)
	for id := first; id < first+ID(count); id++ {
		if t.nodes[id].kind() == File {
			visit(id)
		}
	}
	for id := first; id < first+ID(count); id++ {
		if t.nodes[id].kind() == Dir {
			t.walk(id, visit)
		}
	}
}
