package tree

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// ErrInvalid is wrapped by every error about a tree that breaks the model:
// bad names, entries below a non-directory, sizes that overflow.
var ErrInvalid = errors.New("invalid tree")

// Node describes one entry by its path, as Scan finds it and Build takes it.
type Node struct {
	Path   string // slash-separated from the root; "." for the root
	Link   string // the path of another Node that this name is a hardlink of, or ""
	Kind   Kind
	Mode   uint32
	UID    uint32
	GID    uint32
	Mtime  int64
	Size   int64
	Target string
	Sum    [32]byte
	Xattrs []Xattr
	Holes  []Hole
}

// Plan says how Build lays the content of the files out in the stream.
type Plan struct {
	// PieceLength in bytes; 0 picks one by the size of the payload
	// (DefaultPieceLength).
	PieceLength int64
	// Hot lists paths in the order in which an application first reads them.
	// They come first in the stream; paths that the tree lacks are ignored.
	Hot []string
}

// Build makes a tree of nodes, which may come in any order; the same nodes and
// plan give the same tree. The root may be left out: it is then a directory of
// mode 0755. Every other parent must be there.
func Build(nodes []Node, plan Plan) (*Tree, error) {
	b, err := newBuilder(nodes)
	if err != nil {
		return nil, err
	}
	if err := b.place(); err != nil {
		return nil, err
	}
	if err := b.link(); err != nil {
		return nil, err
	}
	if err := b.t.layOut(plan); err != nil {
		return nil, err
	}
	if err := b.t.check(); err != nil {
		return nil, err
	}
	return b.t, nil
}

type builder struct {
	t        *Tree
	root     Node
	children map[string][]*Node // by the parent's path
	ids      map[string]ID
	links    []linkTo
	names    strings.Builder
	owners   map[owner]uint32
}

type linkTo struct {
	from ID
	to   string
}

func newBuilder(nodes []Node) (*builder, error) {
	if len(nodes) > maxEntries {
		return nil, fmt.Errorf("%w: %d entries; %d are the limit", ErrInvalid, len(nodes), maxEntries)
	}
	b := &builder{
		t: &Tree{}, root: Node{Path: ".", Kind: Dir, Mode: 0o755},
		children: make(map[string][]*Node), ids: make(map[string]ID, len(nodes)),
		owners: make(map[owner]uint32),
	}
	rooted := false
	for i := range nodes {
		n := &nodes[i]
		if n.Path == "." || n.Path == "" {
			if rooted {
				return nil, fmt.Errorf("%w: the root is there twice", ErrInvalid)
			}
			b.root, rooted = *n, true
			continue
		}
		if path.Clean(n.Path) != n.Path || path.IsAbs(n.Path) || strings.HasPrefix(n.Path, "../") {
			return nil, fmt.Errorf("%w: path %q is not clean and relative", ErrInvalid, n.Path)
		}
		dir := path.Dir(n.Path)
		b.children[dir] = append(b.children[dir], n)
	}
	return b, nil
}

// place numbers the entries breadth first, siblings in the order of their
// names, so that the children of a directory are consecutive.
func (b *builder) place() error {
	if err := b.add(".", Root, &b.root); err != nil {
		return err
	}
	paths := []string{"."}
	for id := ID(0); int(id) < len(paths); id++ {
		p := paths[id]
		kids := b.children[p]
		if len(kids) == 0 {
			continue
		}
		if b.t.nodes[id].kind() != Dir {
			return fmt.Errorf("%w: %q has entries below it but is not a directory", ErrInvalid, p)
		}
		delete(b.children, p)
		slices.SortFunc(kids, func(x, y *Node) int { return cmp.Compare(path.Base(x.Path), path.Base(y.Path)) })
		b.t.nodes[id].child, b.t.nodes[id].count = ID(len(b.t.nodes)), uint32(len(kids))
		for _, k := range kids {
			if err := b.add(k.Path, id, k); err != nil {
				return err
			}
			paths = append(paths, k.Path)
		}
	}
	for p := range b.children {
		return fmt.Errorf("%w: the directory %q is missing", ErrInvalid, p)
	}
	b.t.names = b.names.String()
	return nil
}

func (b *builder) add(p string, parent ID, n *Node) error {
	id := ID(len(b.t.nodes))
	if _, dup := b.ids[p]; dup {
		return fmt.Errorf("%w: %q is there twice", ErrInvalid, p)
	}
	b.ids[p] = id
	out := node{
		mtime: n.Mtime, size: n.Size, parent: parent, inode: id, links: 1,
		name: uint32(b.names.Len()), mode: n.Mode&0o7777 | uint32(n.Kind)<<kindShift,
		owner: b.owner(n.UID, n.GID),
	}
	if id != Root {
		b.names.WriteString(path.Base(p))
	}
	if n.Link != "" {
		b.links = append(b.links, linkTo{id, n.Link})
	}
	switch n.Kind {
	case Symlink:
		out.size = int64(len(n.Target))
	case File:
		if n.Link == "" {
			b.t.sums = append(b.t.sums, n.Sum[:]...)
			out.sum = uint32(len(b.t.sums) / digest)
		}
	case Dir:
		out.size = 0
	}
	if n.Target != "" || len(n.Xattrs) > 0 || len(n.Holes) > 0 {
		b.t.extras = append(b.t.extras, extra{n.Target, sortedXattrs(n.Xattrs), n.Holes})
		out.extra = uint32(len(b.t.extras))
	}
	b.t.nodes = append(b.t.nodes, out)
	return nil
}

func sortedXattrs(in []Xattr) []Xattr {
	out := slices.Clone(in)
	slices.SortFunc(out, func(a, b Xattr) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (b *builder) owner(uid, gid uint32) uint32 {
	o := owner{uid, gid}
	i, ok := b.owners[o]
	if !ok {
		i = uint32(len(b.t.owners))
		b.owners[o] = i
		b.t.owners = append(b.t.owners, o)
	}
	return i
}

// link joins hardlinks to the lowest ID among their names and counts names.
func (b *builder) link() error {
	groups := make(map[ID][]ID)
	for _, l := range b.links {
		to, ok := b.ids[path.Clean(l.to)]
		if !ok || b.t.nodes[to].kind() != File || b.t.nodes[l.from].kind() != File {
			return fmt.Errorf("%w: %q is a hardlink of %q, which is no file of the tree",
				ErrInvalid, b.t.Path(l.from), l.to)
		}
		if b.t.nodes[to].sum == 0 {
			return fmt.Errorf("%w: %q is a hardlink of a hardlink", ErrInvalid, b.t.Path(l.from))
		}
		groups[to] = append(groups[to], l.from)
	}
	for first, rest := range groups {
		b.join(append(rest, first), first)
	}
	b.countSubdirs()
	return nil
}

// join makes the lowest of ids the inode of all, with the content of from.
func (b *builder) join(ids []ID, from ID) {
	inode := slices.Min(ids)
	content := b.t.nodes[from]
	for _, id := range ids {
		n := &b.t.nodes[id]
		name, parent := n.name, n.parent
		*n = node{name: name, parent: parent, inode: inode, mode: content.mode, owner: content.owner}
	}
	n := &b.t.nodes[inode]
	name, parent := n.name, n.parent
	*n = content
	n.name, n.parent, n.inode, n.links = name, parent, inode, uint32(len(ids))
}

func (b *builder) countSubdirs() {
	b.t.nodes[Root].links = 2
	for id := ID(1); int(id) < len(b.t.nodes); id++ {
		if b.t.nodes[id].kind() == Dir {
			b.t.nodes[id].links = 2
			b.t.nodes[b.t.nodes[id].parent].links++
		}
	}
}

// WithSums returns a copy of t, sharing all else, in which each file has the
// SHA-256 that sum returns for it. sum is called once for every inode that is
// a file, the empty ones included, in the order of their IDs.
func (t *Tree) WithSums(sum func(ID) [32]byte) *Tree {
	out := *t
	out.sums = make([]byte, len(t.sums))
	for i := range t.nodes {
		if n := t.nodes[i].sum; n != 0 {
			s := sum(ID(i))
			copy(out.sums[int(n-1)*digest:], s[:])
		}
	}
	return &out
}
