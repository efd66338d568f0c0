package tree

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"
)

// restorable reports whether an xattr belongs to the file rather than to the
// host it lies on. Labels of security modules, hashes keyed to a machine and
// views that a filesystem makes of its own state are left out: another host
// would refuse them or mean something else by them.
func restorable(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") ||
		strings.HasPrefix(name, "trusted.") && !strings.HasPrefix(name, "trusted.overlay.")
}

// xattrs returns the restorable xattrs of the entry at p, which is not
// followed if it is a symlink. A filesystem without any is fine.
func xattrs(p string) ([]Xattr, error) {
	names, err := xattr.LList(p)
	if err != nil {
		if errors.Is(err, syscall.ENOTSUP) {
			return nil, nil
		}
		return nil, err
	}
	var out []Xattr
	for _, name := range names {
		if !restorable(name) {
			continue
		}
		value, err := xattr.LGet(p, name)
		if err != nil {
			return nil, err
		}
		out = append(out, Xattr{name, value})
	}
	return sortedXattrs(out), nil
}

// holes returns where the file at p has nothing on disk. Only a file with
// fewer blocks than bytes can have any; others are not even opened.
func holes(p string, st *syscall.Stat_t) ([]Hole, error) {
	if st.Blocks*512 >= st.Size {
		return nil, nil
	}
	f, err := os.OpenFile(p, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []Hole
	// Past maxHoles the rest counts as data: right in content, only not sparse.
	for off := int64(0); off < st.Size && len(out) < maxHoles; {
		start, err := f.Seek(off, unix.SEEK_HOLE)
		if err != nil || start >= st.Size {
			return out, ignoreENXIO(err)
		}
		end, err := f.Seek(start, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data up to the end
			end, err = st.Size, nil
		}
		if err != nil {
			return nil, err
		}
		end = min(end, st.Size)
		if end > start {
			out = append(out, Hole{start, end - start})
		}
		off = max(end, start+1)
	}
	return out, nil
}

// ignoreENXIO drops the error of a seek past the end: the file shrank, which
// ScanResult.Check tells later.
func ignoreENXIO(err error) error {
	if errors.Is(err, unix.ENXIO) {
		return nil
	}
	return err
}
