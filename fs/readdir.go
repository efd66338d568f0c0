package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"dcfs/fs/tree"
)

// A directory's listing is ".", "..", then the children in the tree's order.
// The offset of an entry is its number plus one, so that a listing can go on
// from any of them.
const dots = 2

// ReadDir lists names only.
func (r *raw) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.list(in, func(_ tree.ID, e fuse.DirEntry) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus lists names and looks each of them up, which saves a request per
// file for find and ls -l. The dots are not looked up: the kernel holds both.
func (r *raw) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.list(in, func(id tree.ID, e fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(e)
		if entry != nil && e.Off > dots {
			r.setEntry(id, entry)
		}
		return entry != nil
	})
}

// list calls add for the entries of a directory from in.Offset on, until add
// has no room.
func (r *raw) list(in *fuse.ReadIn, add func(tree.ID, fuse.DirEntry) bool) fuse.Status {
	dir, ok := r.entry(in.NodeId)
	if !ok || r.tree.Kind(dir) != tree.Dir {
		return fuse.ENOTDIR
	}
	first, count := r.tree.Children(dir)
	for at := in.Offset; at < uint64(count)+dots; at++ {
		id, name := dir, "."
		switch at {
		case 0:
		case 1:
			id, name = r.tree.Parent(dir), ".."
		default:
			id = first + tree.ID(at-dots)
			name = r.tree.Name(id)
		}
		e := fuse.DirEntry{Name: name, Ino: r.nodeID(id), Mode: modeOf(r.tree.Kind(id)), Off: at + 1}
		if !add(id, e) {
			break
		}
	}
	return fuse.OK
}
