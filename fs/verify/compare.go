package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/fs/tree"
)

var formats = map[tree.Kind]uint32{tree.Dir: unix.S_IFDIR, tree.File: unix.S_IFREG, tree.Symlink: unix.S_IFLNK}

const setIDs = unix.S_ISUID | unix.S_ISGID

// metadata compares owner, mode, mtime and size.
func (w *walk) metadata(j *job, path string, st *unix.Stat_t) {
	e := &j.e
	owned := st.Uid == e.UID && st.Gid == e.GID
	if !owned && !w.opt.Unprivileged {
		j.add(path, Owner, fmt.Sprintf("%d:%d", e.UID, e.GID), fmt.Sprintf("%d:%d", st.Uid, st.Gid))
	}
	want, got := e.Mode, st.Mode&0o7777
	if w.opt.Unprivileged && !owned && got&setIDs == 0 {
		want &^= setIDs
	}
	if want != got && e.Kind != tree.Symlink {
		j.add(path, Mode, fmt.Sprintf("%04o", want), fmt.Sprintf("%04o", got))
	}
	if got := st.Mtim.Nano(); got != e.Mtime {
		j.add(path, Mtime, stamp(e.Mtime), stamp(got))
	}
	if e.Kind == tree.File && st.Size != e.Size {
		j.add(path, Size, fmt.Sprint(e.Size), fmt.Sprint(st.Size))
	}
}

// links holds the file against the other names of its inode that came before,
// and says whether it was compared under one of these already.
func (w *walk) links(j *job, path string, st *unix.Stat_t) (seen bool) {
	on := inode{st.Dev, st.Ino}
	if st.Nlink > 1 {
		first, ok := w.inodes[on]
		if !ok {
			w.inodes[on] = j.e.ID
		} else if w.t.Inode(first) != j.e.Inode {
			j.add(path, Links, "a file of its own", "the same file as "+quote(w.t.Path(first)))
		}
	}
	if j.e.Links < 2 {
		return false
	}
	first, ok := w.firsts[j.e.Inode]
	if !ok {
		w.firsts[j.e.Inode] = on
		return false
	}
	if first != on {
		j.add(path, Links, "the same file as "+quote(w.t.Path(j.e.Inode)), "a file of its own")
		return false
	}
	return true
}

// xattrs compares extended attributes by name. Those of the host count only
// where the release has them.
func (w *walk) xattrs(j *job, path string, got map[string][]byte) {
	want := make(map[string][]byte, len(j.e.Xattrs))
	for _, x := range j.e.Xattrs {
		want[x.Name] = x.Value
	}
	names := slices.AppendSeq(slices.Collect(maps.Keys(want)), maps.Keys(got))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		wv, wok := want[name]
		gv, gok := got[name]
		switch {
		case wok && gok && bytes.Equal(wv, gv), !wok && !scanned(name):
		case wok && !gok && w.opt.Unprivileged && !strings.HasPrefix(name, "user."):
		default:
			j.add(path, Xattr, attrText(name, wv, wok), attrText(name, gv, gok))
		}
	}
}

// scanned holds for the attributes that tree.Scan takes into a release. Others
// belong to the host: labels, hashes and views that its kernel makes.
func scanned(attr string) bool {
	switch attr {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(attr, "user.") ||
		strings.HasPrefix(attr, "trusted.") && !strings.HasPrefix(attr, "trusted.overlay.")
}

func attrText(name string, v []byte, ok bool) string {
	switch {
	case !ok:
		return "no " + name
	case len(v) > 64:
		sum := sha256.Sum256(v)
		return fmt.Sprintf("%s of %d bytes, sha256 %x", name, len(v), sum)
	}
	return name + "=0x" + hex.EncodeToString(v)
}

// work reads content until there are no more jobs.
func (w *walk) work() {
	buf := make([]byte, 256<<10)
	for j := range w.todo {
		if w.ctx.Err() == nil {
			j.err = w.content(j, buf)
		}
		j.dir.put()
		close(j.done)
	}
}

func (w *walk) content(j *job, buf []byte) error {
	f, err := j.dir.Open(j.e.Name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	for {
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := w.ctx.Err(); err != nil {
			return err
		}
	}
	if sum := h.Sum(nil); !bytes.Equal(sum, j.e.Sum[:]) {
		j.add(j.dir.join(j.e.Name), Content, "sha256 "+hex.EncodeToString(j.e.Sum[:]), "sha256 "+hex.EncodeToString(sum))
	}
	return nil
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

func kindName(k tree.Kind) string { return typeName(formats[k]) }

func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFREG:
		return "file"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFIFO:
		return "FIFO"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "device"
}
