package fs

import (
	"sort"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"dcfs/fs/tree"
)

// Lseek answers SEEK_DATA and SEEK_HOLE, so that cp and tar keep a sparse file
// sparse and do not even fetch what is in its holes. The other ways to seek
// never come here: the kernel knows the size.
func (r *raw) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	id, ok := r.entry(in.NodeId)
	if !ok || r.tree.Kind(id) != tree.File {
		return fuse.EINVAL
	}
	e := r.tree.Meta(id)
	off, found := int64(in.Offset), false
	switch in.Whence {
	case unix.SEEK_DATA:
		off, found = seekData(&e, off)
	case unix.SEEK_HOLE:
		off, found = seekHole(&e, off)
	default:
		return fuse.EINVAL
	}
	if !found {
		return fuse.Status(unix.ENXIO)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

// holeAt returns the first hole that ends behind off.
func holeAt(e *tree.Entry, off int64) (tree.Hole, bool) {
	i := sort.Search(len(e.Holes), func(i int) bool { return e.Holes[i].Offset+e.Holes[i].Length > off })
	if i == len(e.Holes) {
		return tree.Hole{}, false
	}
	return e.Holes[i], true
}

// seekData returns the first byte from off that is in no hole; false when
// there is none.
func seekData(e *tree.Entry, off int64) (int64, bool) {
	if h, ok := holeAt(e, off); ok && h.Offset <= off {
		off = h.Offset + h.Length // holes do not touch
	}
	return off, off >= 0 && off < e.Size
}

// seekHole returns the first byte from off that is in a hole, as which the end
// of the file counts; false when off is not in the file.
func seekHole(e *tree.Entry, off int64) (int64, bool) {
	if off < 0 || off >= e.Size {
		return 0, false
	}
	if h, ok := holeAt(e, off); ok {
		return max(h.Offset, off), true
	}
	return e.Size, true
}

// stored is how many bytes of a file are in no hole.
func stored(e *tree.Entry) int64 {
	n := e.Size
	for _, h := range e.Holes {
		n -= h.Length
	}
	return n
}
