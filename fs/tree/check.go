package tree

import (
	"fmt"
	"strings"
)

// Bounds of what a release may hold; a tree beyond them is refused whole.
const (
	maxName   = 255       // bytes in a name (Linux NAME_MAX)
	maxPath   = 4095      // bytes in a path from the root, and in a link target (PATH_MAX - 1)
	maxXattr  = 64 << 10  // bytes in an xattr's value (XATTR_SIZE_MAX)
	maxXattrs = 128       // xattrs of one entry
	maxHoles  = 1 << 16   // holes of one file
	maxTotal  = 1<<53 - 1 // bytes of a stream, the largest integer that JSON carries

	maxEntries = 1 << 21   // entries of a tree: 128 MiB of nodes
	maxBulk    = 128 << 20 // bytes of all names, targets, xattrs and holes; see bulk
)

// check holds the tree against every rule of the model. All trees pass here,
// built or decoded, so that nothing behind it has to doubt.
func (t *Tree) check() error {
	for _, step := range []func() error{t.checkBounds, t.checkShape, t.checkNodes, t.checkInodes, t.checkStream} {
		if err := step(); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return nil
}

// checkBounds proves that the tree is small enough to be encoded and to be
// held in memory by whoever decodes it.
func (t *Tree) checkBounds() error {
	if len(t.nodes) > maxEntries {
		return fmt.Errorf("%d entries; %d are the limit", len(t.nodes), maxEntries)
	}
	sum := int64(len(t.names))
	for i := range t.nodes {
		if n := &t.nodes[i]; n.extra != 0 {
			sum += t.extras[n.extra-1].bulk()
		}
	}
	if sum > maxBulk {
		return fmt.Errorf("names, link targets, xattrs and holes take %d bytes; %d are the limit", sum, maxBulk)
	}
	return nil
}

// What one xattr and one hole cost in memory beside their bytes.
const (
	xattrCost = 40
	holeCost  = 16
)

// bulk returns about how many bytes of memory x takes.
func (x *extra) bulk() int64 {
	sum := int64(len(x.target)) + holeCost*int64(len(x.holes))
	for _, a := range x.xattrs {
		sum += xattrCost + int64(len(a.Name)+len(a.Value))
	}
	return sum
}

// checkShape proves that the entries form one tree: the children of the
// directories, taken in order, are all entries but the root, each once.
func (t *Tree) checkShape() error {
	if len(t.nodes) == 0 || t.nodes[Root].kind() != Dir || t.nodes[Root].parent != Root {
		return fmt.Errorf("the root is no directory")
	}
	next, lengths := int64(1), make([]int32, len(t.nodes))
	for i := range t.nodes {
		n := &t.nodes[i]
		if n.count == 0 {
			continue
		}
		if n.kind() != Dir || int64(n.child) != next || next <= int64(i) || int64(n.count) > int64(len(t.nodes))-next {
			return fmt.Errorf("entry %d has children where none can be", i)
		}
		for id := n.child; id < n.child+ID(n.count); id++ {
			if t.nodes[id].parent != ID(i) {
				return fmt.Errorf("entry %d is not where its parent is", id)
			}
			lengths[id] = lengths[i] + int32(len(t.Name(id))) + 1
			if lengths[id] > maxPath+1 {
				return fmt.Errorf("a path is longer than %d bytes", maxPath)
			}
		}
		next += int64(n.count)
	}
	if next != int64(len(t.nodes)) {
		return fmt.Errorf("%d entries are in no directory", int64(len(t.nodes))-next)
	}
	return nil
}

func (t *Tree) checkNodes() error {
	for id := ID(0); int(id) < len(t.nodes); id++ {
		n := &t.nodes[id]
		if id != Root {
			if err := checkName(t.Name(id)); err != nil {
				return err
			}
			if prev := id - 1; prev != Root && t.nodes[prev].parent == n.parent && t.Name(prev) >= t.Name(id) {
				return fmt.Errorf("%q and %q are twins or out of order", t.Path(prev), t.Path(id))
			}
		}
		if err := t.checkContent(id, n); err != nil {
			return err
		}
	}
	return nil
}

func checkName(s string) error {
	switch {
	case s == "" || s == "." || s == "..":
		return fmt.Errorf("%q is not a name", s)
	case len(s) > maxName:
		return fmt.Errorf("the name %.40q… has %d bytes; %d are the limit", s, len(s), maxName)
	case strings.ContainsAny(s, "/\x00"):
		return fmt.Errorf("the name %q has a slash or a NUL in it", s)
	}
	return nil
}

func (t *Tree) checkContent(id ID, n *node) error {
	var x extra
	if n.extra != 0 {
		x = t.extras[n.extra-1]
	}
	switch n.kind() {
	case Dir:
		if n.size != 0 || x.target != "" {
			return fmt.Errorf("the directory %q has content", t.Path(id))
		}
	case File:
		if n.size < 0 || n.size > maxTotal || x.target != "" {
			return fmt.Errorf("the file %q has size %d", t.Path(id), n.size)
		}
	case Symlink:
		if x.target == "" || len(x.target) > maxPath || strings.Contains(x.target, "\x00") || n.size != int64(len(x.target)) {
			return fmt.Errorf("the symlink %q has a bad target", t.Path(id))
		}
	default:
		return fmt.Errorf("%q is of unknown kind %d", t.Path(id), n.kind())
	}
	if n.kind() != File && len(x.holes) > 0 {
		return fmt.Errorf("%q has holes but is no file", t.Path(id))
	}
	if err := checkHoles(x.holes, n.size); err != nil {
		return fmt.Errorf("%q: %w", t.Path(id), err)
	}
	if err := checkXattrs(x.xattrs); err != nil {
		return fmt.Errorf("%q: %w", t.Path(id), err)
	}
	return nil
}

func checkHoles(holes []Hole, size int64) error {
	if len(holes) > maxHoles {
		return fmt.Errorf("%d holes; %d are the limit", len(holes), maxHoles)
	}
	end := int64(-1)
	for _, h := range holes {
		if h.Offset <= end || h.Length <= 0 || h.Offset > size || h.Length > size-h.Offset {
			return fmt.Errorf("the hole at %d, %d bytes long, does not fit", h.Offset, h.Length)
		}
		end = h.Offset + h.Length
	}
	return nil
}

func checkXattrs(xs []Xattr) error {
	if len(xs) > maxXattrs {
		return fmt.Errorf("%d xattrs; %d are the limit", len(xs), maxXattrs)
	}
	for i, x := range xs {
		if x.Name == "" || len(x.Name) > maxName || strings.Contains(x.Name, "\x00") || len(x.Value) > maxXattr {
			return fmt.Errorf("the xattr %.40q, %d bytes, is out of bounds", x.Name, len(x.Value))
		}
		if i > 0 && xs[i-1].Name >= x.Name {
			return fmt.Errorf("the xattrs %q and %q are twins or out of order", xs[i-1].Name, x.Name)
		}
	}
	return nil
}

// checkInodes proves that hardlinks lead to a file that leads to itself, and
// that link counts are right.
func (t *Tree) checkInodes() error {
	names := make([]uint32, len(t.nodes))
	for i := range t.nodes {
		n := &t.nodes[i]
		if int(n.inode) > i || n.kind() != t.nodes[n.inode].kind() || t.nodes[n.inode].inode != n.inode {
			return fmt.Errorf("%q is a hardlink of the wrong entry", t.Path(ID(i)))
		}
		if n.kind() != File && int(n.inode) != i {
			return fmt.Errorf("%q is a hardlink but no file", t.Path(ID(i)))
		}
		if n.kind() == File && int(n.inode) == i && n.sum == 0 {
			return fmt.Errorf("%q has no digest", t.Path(ID(i)))
		}
		names[n.inode]++
		if n.kind() == Dir {
			names[i]++
			if ID(i) != Root {
				names[n.parent]++
			}
		}
	}
	for i := range t.nodes {
		if n := &t.nodes[i]; int(n.inode) == i && n.links != names[i] {
			return fmt.Errorf("%q says %d links and has %d", t.Path(ID(i)), n.links, names[i])
		}
	}
	return nil
}

// checkStream proves that the files lie in the stream one behind the other,
// with less than a piece of padding between them, and none is left out.
func (t *Tree) checkStream() error {
	if err := ValidPieceLength(t.piece); err != nil {
		return err
	}
	var end int64
	for _, id := range t.order {
		if !t.Has(id) {
			return fmt.Errorf("the stream holds entry %d, which is none", id)
		}
		n := &t.nodes[id]
		if n.kind() != File || n.inode != id || n.size == 0 {
			return fmt.Errorf("%q lies in the stream but has no content", t.Path(id))
		}
		if n.offset < end || n.offset-end >= t.piece || n.offset > maxTotal-n.size {
			return fmt.Errorf("%q lies at %d, behind %d", t.Path(id), n.offset, end)
		}
		end = n.offset + n.size
	}
	if want := max(end, 1); t.total != want {
		return fmt.Errorf("the stream is said to have %d bytes and has %d", t.total, want)
	}
	with := 0
	for i := range t.nodes {
		if n := &t.nodes[i]; n.kind() == File && int(n.inode) == i && n.size > 0 {
			with++
		}
	}
	if with != len(t.order) {
		return fmt.Errorf("%d files have content and %d lie in the stream", with, len(t.order))
	}
	return nil
}
