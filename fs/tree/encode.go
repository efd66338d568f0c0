package tree

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// The encoding of a tree, version 1:
//
//	magic, method, length of the columns, length of the packed columns,
//	packed columns, SHA-256 of every file in the order of their IDs,
//	weak sums (WeakSums, 4 bytes each, big endian) or nothing
//
// The columns hold one property of all entries after the other, because
// neighbours resemble each other, as varints (encoding/binary, unsigned, the
// shortest form; signed ones zigzag). Whatever follows from something else is
// left out. Digests and weak sums cannot be compressed and stay outside.
//
//	head     log2 of the piece length, number of entries
//	classes  count; then kind<<12|mode, uid, gid of each in the order of use
//	class    of each entry: 1 + its class, or 0 for a further name of a hardlink
//	links    of each further name: how far back its inode's ID lies
//	children of each directory: how many
//	mtime    of each inode: seconds as the difference to the one before (signed)
//	mtime    of each inode: nanoseconds
//	sizes    of each file
//	names    length of each, then the bytes of all; the root has none
//	targets  the same for each symlink
//	xattrs   count of sets; each set: count, then name and value with lengths;
//	         count of inodes that have one; each: ID step, 1 + set, in order of use
//	holes    count of files that have some; each: ID step, count, then gap and length
//	stream   IDs of the files with content as differences (signed)
//	padding  count of files with padding before them; each: step in the stream, length
const (
	magic  = "dcfstree\x01"
	stored = 0
	zstded = 1

	digest = 32
	second = 1_000_000_000

	// maxColumns bounds what Decode unpacks. A tree within maxEntries and
	// maxBulk stays below: an entry's varints take 72 bytes at most.
	maxColumns = 72*maxEntries + maxBulk + 1<<20
	// freeColumns and maxRatio bound what Decode unpacks of a small input.
	freeColumns = 1 << 20
	maxRatio    = 256
)

// columnLimit returns how long the columns may be in an encoding of n bytes.
func columnLimit(n int) int { return min(maxColumns, freeColumns+maxRatio*n) }

// Encode returns t in the form that Decode reads. Equal trees have equal
// encodings.
func Encode(t *Tree) []byte {
	columns, digests := columnsOf(t)
	method, packed := byte(zstded), compress(columns)
	if len(columns) > columnLimit(len(magic)+len(packed)+len(digests)) {
		method, packed = stored, columns // so repetitive that it looks like an attack
	}
	return frame(method, len(columns), packed, digests)
}

// columnsOf returns what the tree consists of, not compressed yet.
func columnsOf(t *Tree) (columns, digests []byte) {
	e := &encoder{t: t}
	for _, column := range []func(){
		e.head, e.classes, e.links, e.children, e.mtimes, e.sizes, e.names, e.targets,
		e.xattrs, e.holes, e.stream, e.padding,
	} {
		column()
	}
	return e.b, e.digests()
}

func frame(method byte, size int, packed, digests []byte) []byte {
	out := make([]byte, 0, len(magic)+1+2*binary.MaxVarintLen64+len(packed)+len(digests))
	out = append(append(out, magic...), method)
	out = binary.AppendUvarint(out, uint64(size))
	out = binary.AppendUvarint(out, uint64(len(packed)))
	return append(append(out, packed...), digests...)
}

// compress is deterministic: one goroutine, fixed level, no checksum, since
// the info-hash covers all. A change of the library may still change what it
// returns; a golden test tells.
func compress(b []byte) []byte {
	if len(b) <= oneBlock {
		return compressIn(oneBlock, b) // the result is the same, without buffers of twice 8 MiB
	}
	return compressIn(largeWindow, b)
}

const (
	// oneBlock is what zstd compresses in one go, in bytes.
	oneBlock    = 128 << 10
	largeWindow = 8 << 20
)

// compressIn compresses with a window of so many bytes.
func compressIn(window int, b []byte) []byte {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithWindowSize(window), zstd.WithZeroFrames(true))
	if err != nil {
		panic(fmt.Sprintf("zstd refuses constant options: %v", err))
	}
	return z.EncodeAll(b, nil)
}

type encoder struct {
	t *Tree
	b []byte
}

func (e *encoder) uint(v uint64)  { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) count(n int)    { e.uint(uint64(n)) }
func (e *encoder) int(v int64)    { e.uint(uint64(v<<1) ^ uint64(v>>63)) }
func (e *encoder) text(s string)  { e.count(len(s)); e.b = append(e.b, s...) }
func (e *encoder) bytes(s []byte) { e.count(len(s)); e.b = append(e.b, s...) }

// inodes calls f for every entry but the further names of hardlinks.
func (e *encoder) inodes(f func(ID, *node)) {
	for i := range e.t.nodes {
		if n := &e.t.nodes[i]; n.inode == ID(i) {
			f(ID(i), n)
		}
	}
}

func (e *encoder) head() {
	e.count(bits.TrailingZeros64(uint64(e.t.piece)))
	e.count(len(e.t.nodes))
}

// class is what few values of serve all entries of most trees.
type class struct {
	mode uint32 // with the kind above it, as in node
	owner
}

func (e *encoder) classes() {
	seen := make(map[class]uint64)
	var table []class
	e.inodes(func(_ ID, n *node) {
		c := class{n.mode, e.t.owners[n.owner]}
		if _, ok := seen[c]; !ok {
			table = append(table, c)
			seen[c] = uint64(len(table))
		}
	})
	e.count(len(table))
	for _, c := range table {
		e.uint(uint64(c.mode))
		e.uint(uint64(c.uid))
		e.uint(uint64(c.gid))
	}
	for i := range e.t.nodes {
		n := &e.t.nodes[i]
		if n.inode != ID(i) {
			e.uint(0)
			continue
		}
		e.uint(seen[class{n.mode, e.t.owners[n.owner]}])
	}
}

func (e *encoder) links() {
	for i := range e.t.nodes {
		if n := &e.t.nodes[i]; n.inode != ID(i) {
			e.uint(uint64(ID(i) - n.inode))
		}
	}
}

func (e *encoder) children() {
	e.inodes(func(_ ID, n *node) {
		if n.kind() == Dir {
			e.uint(uint64(n.count))
		}
	})
}

func (e *encoder) mtimes() {
	var last int64
	e.inodes(func(_ ID, n *node) {
		sec, _ := splitTime(n.mtime)
		e.int(sec - last)
		last = sec
	})
	e.inodes(func(_ ID, n *node) {
		_, nsec := splitTime(n.mtime)
		e.uint(uint64(nsec))
	})
}

// splitTime splits nanoseconds since the epoch so that the second part is
// never negative.
func splitTime(t int64) (sec, nsec int64) {
	sec, nsec = t/second, t%second
	if nsec < 0 {
		sec, nsec = sec-1, nsec+second
	}
	return sec, nsec
}

func (e *encoder) sizes() {
	e.inodes(func(_ ID, n *node) {
		if n.kind() == File {
			e.uint(uint64(n.size))
		}
	})
}

func (e *encoder) names() {
	for id := ID(1); int(id) < len(e.t.nodes); id++ {
		e.count(len(e.t.Name(id)))
	}
	e.b = append(e.b, e.t.names...)
}

func (e *encoder) targets() {
	var all []byte
	e.inodes(func(_ ID, n *node) {
		if n.kind() == Symlink {
			target := e.t.extras[n.extra-1].target
			e.count(len(target))
			all = append(all, target...)
		}
	})
	e.b = append(e.b, all...)
}

func (e *encoder) xattrs() {
	seen := make(map[string]uint64)
	var sets, uses encoder
	var count int
	last := int64(-1)
	e.inodes(func(id ID, n *node) {
		if n.extra == 0 || len(e.t.extras[n.extra-1].xattrs) == 0 {
			return
		}
		start := len(sets.b)
		sets.xattrSet(e.t.extras[n.extra-1].xattrs)
		set := string(sets.b[start:])
		if _, ok := seen[set]; ok {
			sets.b = sets.b[:start]
		} else {
			seen[set] = uint64(len(seen) + 1)
		}
		uses.count(int(int64(id) - last))
		uses.uint(seen[set])
		last, count = int64(id), count+1
	})
	e.count(len(seen))
	e.b = append(e.b, sets.b...)
	e.count(count)
	e.b = append(e.b, uses.b...)
}

func (e *encoder) xattrSet(xs []Xattr) {
	e.count(len(xs))
	for _, x := range xs {
		e.text(x.Name)
		e.bytes(x.Value)
	}
}

func (e *encoder) holes() {
	var files encoder
	var count int
	last := int64(-1)
	e.inodes(func(id ID, n *node) {
		if n.extra == 0 || len(e.t.extras[n.extra-1].holes) == 0 {
			return
		}
		holes := e.t.extras[n.extra-1].holes
		files.count(int(int64(id) - last))
		files.count(len(holes))
		var end int64
		for _, h := range holes {
			files.uint(uint64(h.Offset - end))
			files.uint(uint64(h.Length))
			end = h.Offset + h.Length
		}
		last, count = int64(id), count+1
	})
	e.count(count)
	e.b = append(e.b, files.b...)
}

func (e *encoder) stream() {
	last := int64(0)
	for _, id := range e.t.order {
		e.int(int64(id) - last)
		last = int64(id)
	}
}

func (e *encoder) padding() {
	var gaps encoder
	var count int
	var end int64
	last := -1
	for i, id := range e.t.order {
		n := &e.t.nodes[id]
		if n.offset != end {
			gaps.count(i - last)
			gaps.uint(uint64(n.offset - end))
			last, count = i, count+1
		}
		end = n.offset + n.size
	}
	e.count(count)
	e.b = append(e.b, gaps.b...)
}

func (e *encoder) digests() []byte {
	out := make([]byte, 0, len(e.t.sums)+4*len(e.t.weak))
	e.inodes(func(_ ID, n *node) {
		if n.sum != 0 {
			out = append(out, e.t.sums[int(n.sum-1)*digest:][:digest]...)
		}
	})
	for _, w := range e.t.weak {
		out = binary.BigEndian.AppendUint32(out, w)
	}
	return out
}
