package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"dcfs/fs/tree"
)

const (
	// forever is how long the kernel may keep names and attributes, in
	// seconds: a century.
	forever = 100 * 365 * 24 * 3600
	// fillingFor is the same for the attributes of a file that is not whole
	// yet, so that du shows progress.
	fillingFor = 1

	blockSize = 4096
	sector    = 512 // unit of st_blocks
)

// nodeID of an entry: all names of a hardlinked file share the inode's.
func (r *raw) nodeID(id tree.ID) uint64 { return uint64(r.tree.Inode(id)) + 1 }

// entry is the reverse of nodeID.
func (r *raw) entry(node uint64) (tree.ID, bool) {
	if node == 0 || node > uint64(r.tree.Len()) {
		return tree.None, false
	}
	return tree.ID(node - 1), true
}

// setAttr fills out and returns for how many seconds the kernel may keep it.
func (r *raw) setAttr(id tree.ID, out *fuse.Attr) uint64 {
	e := r.tree.Meta(id)
	sec, nsec := splitTime(e.Mtime)
	blocks, valid := r.blocks(&e)
	*out = fuse.Attr{
		Ino: r.nodeID(id), Size: uint64(e.Size), Blocks: blocks, Blksize: blockSize,
		Atime: sec, Mtime: sec, Ctime: sec, Atimensec: nsec, Mtimensec: nsec, Ctimensec: nsec,
		Mode: modeOf(e.Kind) | e.Mode, Nlink: e.Links, Owner: fuse.Owner{Uid: e.UID, Gid: e.GID},
	}
	return valid
}

// setEntry fills the answer to a lookup that found id and counts the kernel's
// new hold on it.
func (r *raw) setEntry(id tree.ID, out *fuse.EntryOut) {
	out.NodeId = r.nodeID(id)
	out.EntryValid = forever
	out.AttrValid = r.setAttr(id, &out.Attr)
	r.holds.add(r.tree.Inode(id))
}

// blocks returns st_blocks, and for how long it is true. Holes take none. It is
// never zero for a file with content: some archivers take that for one big hole.
func (r *raw) blocks(e *tree.Entry) (sectors, valid uint64) {
	full := stored(e)
	if e.Kind != tree.File || full == 0 {
		return 0, forever
	}
	present, valid := full, uint64(forever)
	if r.cfg.Resident != nil {
		all := r.cfg.Resident(e.Offset, e.Size)
		if present = min(all, full); all < e.Size {
			valid = fillingFor
		}
	}
	pages := max(uint64(max(present, 0)+blockSize-1)/blockSize, 1)
	return pages * (blockSize / sector), valid
}

// splitTime splits nanoseconds since the epoch as a timespec has it: the
// seconds may be negative (in two's complement), the rest never is.
func splitTime(ns int64) (sec uint64, nsec uint32) {
	s, rest := ns/1e9, ns%1e9
	if rest < 0 {
		s, rest = s-1, rest+1e9
	}
	return uint64(s), uint32(rest)
}

func modeOf(k tree.Kind) uint32 {
	switch k {
	case tree.Dir:
		return syscall.S_IFDIR
	case tree.Symlink:
		return syscall.S_IFLNK
	default:
		return syscall.S_IFREG
	}
}
