package fs

import (
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// GetXAttr returns the length of a value, and copies it when dest is not
// empty. A release without any xattr says ENOSYS, so that the kernel stops
// asking for security.capability before every exec.
func (r *raw) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if !r.xattrs {
		return 0, fuse.ENOSYS
	}
	id, ok := r.entry(h.NodeId)
	if !ok {
		return 0, fuse.ENOENT
	}
	for _, x := range r.tree.Meta(id).Xattrs {
		if x.Name == name {
			return give(x.Value, dest)
		}
	}
	if space, _, ok := strings.Cut(name, "."); !ok || !slices.Contains(xattrSpaces, space) {
		return 0, fuse.Status(unix.ENOTSUP) // as xattr(7) has it
	}
	return 0, fuse.ENODATA
}

// xattrSpaces are the namespaces of names of xattrs.
var xattrSpaces = []string{"user", "security", "trusted", "system"}

// ListXAttr returns the names, each with a NUL behind it.
func (r *raw) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if !r.xattrs {
		return 0, fuse.ENOSYS
	}
	id, ok := r.entry(h.NodeId)
	if !ok {
		return 0, fuse.ENOENT
	}
	var names []byte
	for _, x := range r.tree.Meta(id).Xattrs {
		names = append(append(names, x.Name...), 0)
	}
	return give(names, dest)
}

func give(value, dest []byte) (uint32, fuse.Status) {
	switch {
	case len(dest) == 0:
	case len(value) > len(dest):
		return uint32(len(value)), fuse.ERANGE
	default:
		copy(dest, value)
	}
	return uint32(len(value)), fuse.OK
}
