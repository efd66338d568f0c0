package tree

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// Decode reads what Encode wrote. The input may come from anybody: memory is
// bounded by its length and by the bounds of the model, the result has passed
// every check of the model, and columns that Encode would have written in
// another way are refused, so that one tree has one encoding. Errors wrap
// ErrInvalid. The tree keeps b for its digests: b must not change.
func Decode(b []byte) (*Tree, error) {
	columns, digests, err := unpack(b)
	if err != nil {
		return nil, fmt.Errorf("%w: its encoding: %w", ErrInvalid, err)
	}
	d := &decoder{t: &Tree{}, reader: reader{b: columns}, budget: maxBulk}
	for _, column := range []func(){
		d.head, d.classes, d.class, d.links, d.children, d.mtimes, d.sizes, d.names, d.targets,
		d.xattrs, d.holes, d.stream, d.padding,
	} {
		if column(); d.err != nil {
			return nil, fmt.Errorf("%w: its encoding: %w", ErrInvalid, d.err)
		}
	}
	if len(d.b) > 0 {
		return nil, fmt.Errorf("%w: its encoding: %d bytes behind the columns", ErrInvalid, len(d.b))
	}
	if err := d.digests(digests); err != nil {
		return nil, fmt.Errorf("%w: its encoding: %w", ErrInvalid, err)
	}
	if err := d.t.check(); err != nil {
		return nil, err
	}
	return d.t, nil
}

// unpack takes the frame apart and returns the columns and the digests.
func unpack(b []byte) (columns, digests []byte, err error) {
	rest, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok || len(rest) == 0 {
		return nil, nil, fmt.Errorf("no tree of version %d", magic[len(magic)-1])
	}
	method := rest[0]
	r := &reader{b: rest[1:]}
	size := int(r.uint(uint64(columnLimit(len(b))), "length of the columns"))
	packed := r.take(r.count(1, "packed length"), "packed columns")
	if r.err != nil {
		return nil, nil, r.err
	}
	switch {
	case method == stored:
		columns = packed
	case method == zstded:
		columns, err = decompress(packed, size)
	default:
		err = fmt.Errorf("unknown method %d", method)
	}
	if err == nil && len(columns) != size {
		err = fmt.Errorf("the columns have %d bytes instead of %d", len(columns), size)
	}
	return columns, r.b, err
}

// decompress unpacks at most size bytes.
func decompress(b []byte, size int) ([]byte, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return z.DecodeAll(b, make([]byte, 0, size))
}

type decoder struct {
	reader
	t      *Tree
	table  []class
	budget int64 // bytes that xattrs and holes may still take, see bulk
}

func (d *decoder) spend(n int) {
	if d.budget -= int64(n); d.budget < 0 {
		d.fail("xattrs and holes take more than %d bytes", maxBulk)
	}
}

func (d *decoder) inodes(f func(ID, *node)) {
	for i := range d.t.nodes {
		if n := &d.t.nodes[i]; n.inode == ID(i) {
			f(ID(i), n)
		}
	}
}

func (d *decoder) head() {
	d.t.piece = 1 << d.uint(uint64(bits.TrailingZeros(MaxPieceLength)), "piece length")
	n := d.count(1, "number of entries")
	if n > maxEntries || n == 0 {
		d.fail("%d entries; 1 to %d can be", n, maxEntries)
		return
	}
	d.t.nodes = make([]node, n)
}

func (d *decoder) classes() {
	d.table = make([]class, d.atMost(len(d.t.nodes), d.count(3, "classes"), "classes"))
	seen := make(map[class]bool, len(d.table))
	for i := range d.table {
		c := &d.table[i]
		c.mode = uint32(d.uint(uint64(Symlink)<<kindShift|0o7777, "mode"))
		c.uid = uint32(d.uint(math.MaxUint32, "uid"))
		c.gid = uint32(d.uint(math.MaxUint32, "gid"))
		if seen[*c] {
			d.fail("a class is there twice")
		}
		seen[*c] = true
	}
}

// class gives each entry its class; further names get theirs from links.
func (d *decoder) class() {
	index := d.owners()
	used := 0
	for i := range d.t.nodes {
		n := &d.t.nodes[i]
		c := int(d.uint(uint64(min(used+1, len(d.table))), "class of an entry"))
		if c == 0 {
			n.inode = None
			continue
		}
		used = max(used, c)
		n.inode, n.links = ID(i), 1
		n.mode, n.owner = d.table[c-1].mode, index[c-1]
	}
	if used != len(d.table) {
		d.fail("a class is used by nobody")
	}
}

// owners makes the tree's table of owners and returns each class's index.
func (d *decoder) owners() []uint32 {
	index := make([]uint32, len(d.table))
	seen := make(map[owner]uint32)
	for i, c := range d.table {
		k, ok := seen[c.owner]
		if !ok {
			k = uint32(len(d.t.owners))
			seen[c.owner] = k
			d.t.owners = append(d.t.owners, c.owner)
		}
		index[i] = k
	}
	return index
}

func (d *decoder) links() {
	for i := range d.t.nodes {
		n := &d.t.nodes[i]
		if n.inode != None {
			continue
		}
		back := d.uint(uint64(i), "link")
		to := &d.t.nodes[i-int(back)]
		if back == 0 || to.inode != ID(i)-ID(back) || to.kind() != File {
			d.fail("entry %d is a hardlink of no file", i)
			return
		}
		n.inode, n.mode, n.owner = to.inode, to.mode, to.owner
		to.links++
	}
}

func (d *decoder) children() {
	next := 1
	d.inodes(func(id ID, n *node) {
		if n.kind() != Dir {
			return
		}
		n.links = 2
		count := int(d.uint(uint64(len(d.t.nodes)-next), "children"))
		if count == 0 {
			return
		}
		n.child, n.count = ID(next), uint32(count)
		for i := next; i < next+count; i++ {
			d.t.nodes[i].parent = id
			if d.t.nodes[i].kind() == Dir {
				n.links++
			}
		}
		next += count
	})
}

func (d *decoder) mtimes() {
	const last = math.MaxInt64 / second // the last second of which each nanosecond fits
	var sec int64
	d.inodes(func(_ ID, n *node) {
		sec += d.int(2*last+2, "mtime")
		if sec > last || sec < -last-1 {
			d.fail("an mtime is out of bounds")
			return
		}
		n.mtime = sec
	})
	d.inodes(func(_ ID, n *node) {
		sec, nsec := n.mtime, int64(d.uint(second-1, "nanoseconds"))
		if n.mtime = sec*second + nsec; d.err == nil && !sameTime(n.mtime, sec, nsec) {
			d.fail("an mtime is out of bounds")
		}
	})
}

// sameTime reports whether t did not overflow when it was made of its parts.
func sameTime(t, sec, nsec int64) bool {
	s, n := splitTime(t)
	return s == sec && n == nsec
}

func (d *decoder) sizes() {
	d.inodes(func(_ ID, n *node) {
		if n.kind() == File {
			n.size = int64(d.uint(maxTotal, "size"))
		}
	})
}

func (d *decoder) names() {
	var total uint32
	for i := 1; i < len(d.t.nodes); i++ {
		d.t.nodes[i].name = total
		total += uint32(d.uint(maxName, "length of a name"))
	}
	d.t.names = string(d.take(int(total), "names"))
}

func (d *decoder) targets() {
	var total int
	d.inodes(func(_ ID, n *node) {
		if n.kind() == Symlink {
			n.size = int64(d.uint(maxPath, "length of a target"))
			total += int(n.size)
		}
	})
	all := string(d.take(total, "targets"))
	if d.err != nil {
		return
	}
	d.inodes(func(_ ID, n *node) {
		if n.kind() == Symlink {
			d.extra(n).target, all = all[:n.size], all[n.size:]
		}
	})
}

// extra returns n's extra, which is valid until the next call.
func (d *decoder) extra(n *node) *extra {
	if n.extra == 0 {
		d.t.extras = append(d.t.extras, extra{})
		n.extra = uint32(len(d.t.extras))
	}
	return &d.t.extras[n.extra-1]
}
