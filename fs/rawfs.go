package fs

import (
	"context"
	"log/slog"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"dcfs/fs/tree"
)

// raw answers the kernel's requests. The tree is immutable, so it needs no
// lock; what it does not override is answered with ENOSYS, which the kernel
// remembers and does not ask again. That is what makes OPEN, OPENDIR and FLUSH
// free. Writing requests never come: the superblock is read-only.
type raw struct {
	fuse.RawFileSystem
	tree  *tree.Tree
	cfg   *Config
	log   *slog.Logger
	holds *holds
	late  late
	ctx   context.Context // ends with the mount; the parent of every READ's

	xattrs bool // whether any entry has some
	acls   bool // whether any entry has a POSIX ACL
}

func newRaw(ctx context.Context, cfg *Config) *raw {
	r := &raw{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		tree:          cfg.Tree, cfg: cfg, log: cfg.Log, ctx: ctx,
		holds: newHolds(cfg.Tree.Len()),
	}
	for id := range tree.ID(r.tree.Len()) {
		for _, x := range r.tree.Meta(id).Xattrs {
			r.xattrs = true
			r.acls = r.acls || strings.HasPrefix(x.Name, "system.posix_acl_")
		}
	}
	return r
}

func (r *raw) String() string { return "dcfs" }

// Lookup finds a name; that there is none is cached as well.
func (r *raw) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir, ok := r.entry(h.NodeId)
	if !ok || r.tree.Kind(dir) != tree.Dir {
		return fuse.ENOTDIR
	}
	if len(name) > unix.NAME_MAX {
		return fuse.Status(unix.ENAMETOOLONG) // the kernel leaves that to the filesystem
	}
	id, ok := r.tree.Lookup(dir, name)
	if !ok {
		*out = fuse.EntryOut{EntryValid: forever}
		return fuse.OK
	}
	r.setEntry(id, out)
	return fuse.OK
}

// Forget takes back holds that lookups gave the kernel.
func (r *raw) Forget(node, n uint64) {
	if id, ok := r.entry(node); ok && id != tree.Root {
		r.holds.drop(id, int64(n))
	}
}

func (r *raw) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	id, ok := r.entry(in.NodeId)
	if !ok {
		return fuse.ENOENT
	}
	out.AttrValid = r.setAttr(id, &out.Attr)
	return fuse.OK
}

func (r *raw) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	id, ok := r.entry(h.NodeId)
	if !ok || r.tree.Kind(id) != tree.Symlink {
		return nil, fuse.EINVAL
	}
	return []byte(r.tree.Meta(id).Target), fuse.OK
}

// Open says ENOSYS: the kernel then opens files itself and keeps their pages.
func (r *raw) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// OpenDir says ENOSYS: the kernel then opens directories itself and caches
// what is in them.
func (r *raw) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// Flush says ENOSYS: closing a file sends no message.
func (r *raw) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// StatFs shows the release as a full filesystem of its own size.
func (r *raw) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{
		Blocks: uint64(r.tree.Bytes()+blockSize-1) / blockSize, Bsize: blockSize, Frsize: blockSize,
		Files: uint64(r.tree.Len()), NameLen: 255,
	}
	return fuse.OK
}
