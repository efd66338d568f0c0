// Package tree is the release model: what a directory tree consists of, with
// its POSIX metadata, and where the content of each file lies in the release's
// payload stream.
//
// A Tree is immutable and safe for concurrent use. The package reads
// directories (Scan) and nothing else: it must never write to a disk, talk to
// a network, or trust an encoded tree before it is checked (Decode).
package tree

import (
	"iter"
	"sort"
	"strings"
)

// ID numbers an entry. A directory's children have consecutive IDs in the byte
// order of their names, and every child's ID is above its parent's. IDs are a
// function of the tree alone, so they are equal on every host.
type ID uint32

// Root is the release's top directory; None is no entry at all.
const (
	Root ID = 0
	None ID = ^ID(0)
)

// Kind is what an entry is.
type Kind uint8

// The kinds a release can hold. Devices, FIFOs and sockets are refused by Scan.
const (
	Dir Kind = iota + 1
	File
	Symlink
)

// Xattr is one extended attribute with its full name, such as
// "security.capability".
type Xattr struct {
	Name  string
	Value []byte
}

// Hole is a run of a file that was never written and reads as zeros.
type Hole struct {
	Offset, Length int64
}

// Entry is all that is known of one directory entry. Slices are shared with
// the tree and must not be changed.
type Entry struct {
	ID     ID
	Parent ID     // Root for the root itself
	Name   string // last path element as raw bytes; "" for the root
	Kind   Kind
	Mode   uint32 // permission bits with setuid, setgid and sticky: 07777
	UID    uint32
	GID    uint32
	Mtime  int64  // nanoseconds since the epoch, may be negative
	Size   int64  // bytes of content; length of Target for a symlink; 0 for a directory
	Target string // what a symlink points to

	// Inode is the entry that stands for the file when several names are
	// hardlinks of one: the lowest ID among them, and ID itself otherwise.
	Inode ID
	Links uint32 // names of this inode; for a directory 2 + its subdirectories

	Offset int64    // where the content starts in the payload stream
	Sum    [32]byte // SHA-256 of a file's content
	Xattrs []Xattr  // in the byte order of their names
	Holes  []Hole   // in rising order, not touching
}

// Tree is a release's whole metadata.
type Tree struct {
	nodes  []node
	names  string // all names one after the other
	owners []owner
	extras []extra
	sums   []byte   // a digest for each inode that is a file, by node.sum
	weak   []uint32 // see WeakSums; nil for none
	order  []ID     // inodes with content in the order of the stream
	total  int64    // bytes of the stream, padding at its end included
	piece  int64    // piece length the stream is laid out for
}

// node is the packed form of an Entry: half a million of them have to fit
// beside a running mount.
type node struct {
	mtime  int64
	size   int64
	offset int64
	name   uint32 // start in Tree.names; the next node's start is its end
	parent ID
	child  ID     // first child of a directory
	count  uint32 // children of a directory
	mode   uint32 // 07777 bits, kind above them
	links  uint32
	owner  uint32 // index into Tree.owners
	extra  uint32 // 1 + index into Tree.extras, 0 for none
	inode  ID
	sum    uint32 // 1 + index into Tree.sums, 0 for none
}

type owner struct{ uid, gid uint32 }

// extra holds what few entries have.
type extra struct {
	target string
	xattrs []Xattr
	holes  []Hole
}

const kindShift = 12

func (n *node) kind() Kind { return Kind(n.mode >> kindShift) }

// Len returns the number of entries, the root included.
func (t *Tree) Len() int { return len(t.nodes) }

// Total returns the length of the payload stream in bytes, padding included.
func (t *Tree) Total() int64 { return t.total }

// PieceLength returns the piece length that the stream was laid out for.
func (t *Tree) PieceLength() int64 { return t.piece }

// Bytes returns the sum of the sizes of all files, each inode counted once and
// padding left out.
func (t *Tree) Bytes() int64 {
	var n int64
	for _, id := range t.order {
		n += t.nodes[id].size
	}
	return n
}

// Files returns the number of entries that are files, each name counted.
func (t *Tree) Files() int {
	n := 0
	for i := range t.nodes {
		if t.nodes[i].kind() == File {
			n++
		}
	}
	return n
}

// Has reports whether id is an entry of the tree.
func (t *Tree) Has(id ID) bool { return int64(id) < int64(len(t.nodes)) }

// Entry returns the entry id, which the tree must have. For a further name of
// a hardlinked file everything but ID, Parent and Name is the inode's.
func (t *Tree) Entry(id ID) Entry {
	e := t.Meta(id)
	if n := &t.nodes[e.Inode]; n.sum != 0 {
		e.Sum = [digest]byte(t.sums[int(n.sum-1)*digest:])
	}
	return e
}

// Meta returns what Entry does without the digest. Digests are most of a large
// tree, and may lie where reading them brings them into memory (see Decode):
// whoever goes over all entries and does not need them spares a mount that.
func (t *Tree) Meta(id ID) Entry {
	own := &t.nodes[id]
	n := &t.nodes[own.inode]
	e := Entry{
		ID: id, Parent: own.parent, Name: t.Name(id), Kind: n.kind(), Mode: n.mode & 0o7777,
		UID: t.owners[n.owner].uid, GID: t.owners[n.owner].gid,
		Mtime: n.mtime, Size: n.size, Inode: own.inode, Links: n.links, Offset: n.offset,
	}
	if n.extra != 0 {
		x := &t.extras[n.extra-1]
		e.Target, e.Xattrs, e.Holes = x.target, x.xattrs, x.holes
	}
	return e
}

// Name returns the last path element of id, and "" for the root.
func (t *Tree) Name(id ID) string {
	end := uint32(len(t.names))
	if int(id)+1 < len(t.nodes) {
		end = t.nodes[id+1].name
	}
	return t.names[t.nodes[id].name:end]
}

// Kind returns what id is.
func (t *Tree) Kind(id ID) Kind { return t.nodes[id].kind() }

// Inode returns the entry that stands for id's file; see Entry.
func (t *Tree) Inode(id ID) ID { return t.nodes[id].inode }

// Parent returns the directory that holds id, and Root for the root.
func (t *Tree) Parent(id ID) ID { return t.nodes[id].parent }

// Span returns where the content of a file lies in the payload stream, and its
// size; zeros for what has no content.
func (t *Tree) Span(id ID) (offset, size int64) {
	n := &t.nodes[t.nodes[id].inode]
	if n.kind() != File {
		return 0, 0
	}
	return n.offset, n.size
}

// Children returns the first child of a directory and how many follow it in
// consecutive IDs; nothing for other kinds.
func (t *Tree) Children(dir ID) (first ID, count int) {
	n := &t.nodes[dir]
	return n.child, int(n.count)
}

// Lookup finds name in the directory dir.
func (t *Tree) Lookup(dir ID, name string) (ID, bool) {
	first, count := t.Children(dir)
	i := sort.Search(count, func(i int) bool { return t.Name(first+ID(i)) >= name })
	if i == count || t.Name(first+ID(i)) != name {
		return None, false
	}
	return first + ID(i), true
}

// Find walks the slash-separated path p from the root without following
// symlinks. "" and "." are the root.
func (t *Tree) Find(p string) (ID, bool) {
	id := Root
	for name := range strings.SplitSeq(p, "/") {
		if name == "" || name == "." {
			continue
		}
		next, ok := t.Lookup(id, name)
		if !ok {
			return None, false
		}
		id = next
	}
	return id, true
}

// Path returns id's path from the root with slashes, and "." for the root.
func (t *Tree) Path(id ID) string {
	if id == Root {
		return "."
	}
	var parts []string
	for ; id != Root; id = t.nodes[id].parent {
		parts = append(parts, t.Name(id))
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, "/")
}

// Stream yields the inodes that have content, in the order of the stream.
func (t *Tree) Stream() iter.Seq[ID] {
	return func(yield func(ID) bool) {
		for _, id := range t.order {
			if !yield(id) {
				return
			}
		}
	}
}

// Extent is a run of the payload stream that belongs to one file, or to none:
// padding, which is zeros.
type Extent struct {
	File   ID    // None for padding
	Start  int64 // where the run starts in the stream
	Offset int64 // where the run starts in the file
	Length int64
}

// Extents yields what lies in the n bytes of the stream from off, in order and
// without gaps, clipped to the stream.
func (t *Tree) Extents(off, n int64) iter.Seq[Extent] {
	return func(yield func(Extent) bool) {
		if off < 0 || n <= 0 || off >= t.total {
			return
		}
		end := off + min(n, t.total-off)
		i := sort.Search(len(t.order), func(i int) bool { return t.fileEnd(i) > off })
		for off < end {
			x := t.extentAt(i, off)
			x.Length = min(x.Length, end-off)
			if !yield(x) {
				return
			}
			off += x.Length
			if i < len(t.order) && off >= t.fileEnd(i) {
				i++
			}
		}
	}
}

func (t *Tree) fileEnd(i int) int64 {
	n := &t.nodes[t.order[i]]
	return n.offset + n.size
}

// extentAt returns the longest extent at off, given the first file in the
// order that ends behind off.
func (t *Tree) extentAt(i int, off int64) Extent {
	if i == len(t.order) {
		return Extent{File: None, Start: off, Length: t.total - off}
	}
	id := t.order[i]
	n := &t.nodes[id]
	if off < n.offset {
		return Extent{File: None, Start: off, Length: n.offset - off}
	}
	return Extent{File: id, Start: off, Offset: off - n.offset, Length: n.offset + n.size - off}
}
