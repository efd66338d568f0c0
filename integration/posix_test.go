package integration

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"dcfs/integration/lab"
)

// TestPOSIX makes the same calls below a mount and on a native filesystem that is
// mounted read-only, as root and as somebody else: each has to end in the same way.
// fs's sweep has that nothing can be written; here are the errors that come before
// that one, and all that reads.
func TestPOSIX(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE)
	native := t.TempDir()
	must(t, unix.Mount("native", native, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(native, unix.MNT_DETACH)) })
	posixTree(t, native)
	l := lab.New(t, "origin", "a")
	o := newOrigin(t, l.Host("origin"))
	release := o.publish(native, "posix")
	must(t, unix.Mount("native", native, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NODEV, ""))
	n := o.newNode(l.Host("a"))
	p, mnt, _ := n.mountBeside(o, release)
	openUp(t, n.Dir)
	calls := posixCalls()
	for _, uid := range []int{0, 12345} {
		want, got := posixRun(t, uid, native, calls), posixRun(t, uid, mnt, calls)
		for _, name := range slices.Sorted(maps.Keys(calls)) {
			if want[name] != got[name] {
				t.Errorf("uid %d: %s: %s, natively %s", uid, name, got[name], want[name])
			}
		}
		if own := want["open secret"] == "OK"; own != (uid == 0) {
			t.Errorf("uid %d: it is not who it should be: %q", uid, want["open secret"])
		}
	}
	if len(calls) < 400 {
		t.Errorf("only %d calls", len(calls))
	}
	stop(t, p)
}

// posixTree has an entry of each kind and with each permission.
func posixTree(t *testing.T, root string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(root, name) }
	for name, mode := range map[string]uint32{"d": 0o755, "d/e": 0o755, "private": 0o700, "listed": 0o744, "entered": 0o711, "sticky": 0o1777, "setgid": 0o2755, "empty": 0o755} {
		must(t, os.MkdirAll(at(name), 0o755))
		defer unix.Chmod(at(name), mode)
	}
	for name, mode := range map[string]uint32{
		"f": 0o644, "secret": 0o600, "none": 0, "exec": 0o755, "ownexec": 0o700, "setuid": 0o4755, "d/g": 0o644, "private/f": 0o644,
		"listed/f": 0o644, "entered/f": 0o644, "sticky/f": 0o666, strings.Repeat("n", 255): 0o644,
	} {
		must(t, os.WriteFile(at(name), []byte("#!/bin/true\n"+strings.Repeat("0123456789", 1000)), 0o600))
		must(t, unix.Chmod(at(name), mode))
	}
	for link, to := range map[string]string{"l": "f", "ld": "d", "dangling": "nowhere", "loop": "pool", "pool": "loop", "self": "self", "d/up": "..", "d/back": "../f", "far": strings.Repeat("x/", 2000) + "x"} {
		must(t, os.Symlink(to, at(link)))
	}
	must(t, os.Link(at("f"), at("hard")))
	must(t, os.WriteFile(at("empty/zero"), nil, 0o644))
	must(t, unix.Setxattr(at("f"), "user.a", []byte("value"), 0))
	hole, err := os.Create(at("hole"))
	must(t, err)
	_, err = hole.WriteAt([]byte("end"), 1<<20)
	must(t, err)
	must(t, hole.Close())
}

// posixRun makes all calls below a directory, as somebody, and returns how they ended.
func posixRun(t *testing.T, uid int, root string, calls map[string]func(string) (any, error)) map[string]string {
	t.Helper()
	got := make(map[string]string)
	// The thread is somebody else for a while. It must not end: what it started would
	// be killed with it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(t, unix.Setfsgid(uid))
	must(t, unix.Setfsuid(uid))
	defer func() {
		must(t, unix.Setfsuid(0))
		must(t, unix.Setfsgid(0))
	}()
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		out, err := calls[name](root)
		var errno unix.Errno
		switch {
		case err == nil && out == nil:
			got[name] = "OK"
		case err == nil:
			got[name] = fmt.Sprint(out)
		case errors.As(err, &errno):
			got[name] = unix.ErrnoName(errno)
		default:
			got[name] = err.Error()
		}
	}
	return got
}

// posixCalls are the calls by name. None may change anything if it succeeds.
func posixCalls() map[string]func(string) (any, error) {
	calls := make(map[string]func(string) (any, error))
	posixOpens(calls)
	posixNames(calls)
	posixReads(calls)
	return calls
}

// posixPaths are names of all kinds, there and not.
var posixPaths = []string{
	"f", "f/", "f/x", "f/.", "f/..", "d", "d/", "d/.", "d/..", "d/e/../g", "d/g", "l", "l/", "ld", "ld/", "ld/g", "dangling", "dangling/", "loop", "self", "loop/x",
	"d/up", "d/up/f", "far", "d/back", "hard", "hole", "secret", "none", "exec", "private", "private/f", "private/x", "listed/f", "listed", "entered/f", "entered",
	"sticky", "sticky/f", "missing", "missing/", "missing/x", "empty", "empty/x", "", strings.Repeat("n", 255), strings.Repeat("n", 256),
	strings.Repeat("n", 256) + "/x", strings.Repeat("d/../", 900) + "f", "ld/" + strings.Repeat("./", 2100),
}

// short is a path as a part of a name.
func short(path string) string {
	if len(path) > 20 {
		return fmt.Sprintf("%.12s…%d", path, len(path))
	}
	return path
}

func posixOpens(calls map[string]func(string) (any, error)) {
	flags := map[string]int{
		"": unix.O_RDONLY, " to write": unix.O_WRONLY, " for both": unix.O_RDWR, ", truncate": unix.O_RDONLY | unix.O_TRUNC, " to append": unix.O_WRONLY | unix.O_APPEND,
		", create": unix.O_CREAT | unix.O_RDONLY, ", create anew": unix.O_CREAT | unix.O_EXCL | unix.O_RDWR, ", directory": unix.O_DIRECTORY,
		", no follow": unix.O_NOFOLLOW, ", path": unix.O_PATH, ", path of a link": unix.O_PATH | unix.O_NOFOLLOW, ", no atime": unix.O_NOATIME,
	}
	for _, path := range posixPaths {
		for what, flag := range flags {
			calls["open "+short(path)+what] = func(root string) (any, error) {
				fd, err := unix.Open(root+"/"+path, flag|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
				if err == nil {
					err = unix.Close(fd)
				}
				return nil, err
			}
		}
		for what, resolve := range map[string]uint64{"beneath": unix.RESOLVE_BENEATH, "in root": unix.RESOLVE_IN_ROOT, "no links": unix.RESOLVE_NO_SYMLINKS, "no crossing": unix.RESOLVE_NO_XDEV} {
			calls["openat2 "+short(path)+", "+what] = func(root string) (any, error) {
				return nil, beneath(root, func(dir int) error {
					fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve})
					if err == nil {
						err = unix.Close(fd)
					}
					return err
				})
			}
		}
	}
}

// beneath opens a directory for f.
func beneath(path string, f func(dir int) error) error {
	dir, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return f(dir)
}

// posixNames are the calls that would change names or attributes.
func posixNames(calls map[string]func(string) (any, error)) {
	const cwd = unix.AT_FDCWD
	for _, path := range posixPaths {
		for what, f := range map[string]func(root, p string) error{
			"mkdir":       func(_, p string) error { return unix.Mkdir(p, 0o755) },
			"rmdir":       func(_, p string) error { return unix.Rmdir(p) },
			"unlink":      func(_, p string) error { return unix.Unlink(p) },
			"mkfifo":      func(_, p string) error { return unix.Mkfifo(p, 0o644) },
			"symlink":     func(_, p string) error { return unix.Symlink("x", p) },
			"link":        func(r, p string) error { return unix.Link(r+"/f", p) },
			"link of":     func(r, p string) error { return unix.Link(p, r+"/new") },
			"rename":      func(r, p string) error { return unix.Rename(p, r+"/new") },
			"rename to":   func(r, p string) error { return unix.Rename(r+"/f", p) },
			"no replace":  func(r, p string) error { return unix.Renameat2(cwd, r+"/f", cwd, p, unix.RENAME_NOREPLACE) },
			"exchange":    func(r, p string) error { return unix.Renameat2(cwd, r+"/f", cwd, p, unix.RENAME_EXCHANGE) },
			"into itself": func(r, p string) error { return unix.Rename(r+"/d", p+"/d") },
			"chmod":       func(_, p string) error { return unix.Chmod(p, 0o600) },
			"chown":       func(_, p string) error { return unix.Lchown(p, 1, 1) },
			"truncate":    func(_, p string) error { return unix.Truncate(p, 1) },
			"negative":    func(_, p string) error { return unix.Truncate(p, -1) },
			"utimes":      func(_, p string) error { return unix.UtimesNanoAt(cwd, p, make([]unix.Timespec, 2), 0) },
			"setxattr":    func(_, p string) error { return unix.Setxattr(p, "user.b", []byte("x"), 0) },
			"removexattr": func(_, p string) error { return unix.Removexattr(p, "user.a") },
			"chdir":       func(_, p string) error { return chdir(p) },
		} {
			calls[what+" "+short(path)] = func(root string) (any, error) { return nil, f(root, root+"/"+path) }
		}
	}
}

// chdir says whether one may go there; nobody goes.
func chdir(path string) error {
	return unix.Faccessat2(unix.AT_FDCWD, path+"/.", unix.X_OK, unix.AT_EACCESS)
}

// posixReads are the calls that answer something.
func posixReads(calls map[string]func(string) (any, error)) {
	for _, path := range posixPaths {
		for what, mode := range map[string]uint32{"there": unix.F_OK, "read": unix.R_OK, "write": unix.W_OK, "execute": unix.X_OK, "all": unix.R_OK | unix.W_OK | unix.X_OK} {
			calls["access "+short(path)+", "+what] = func(root string) (any, error) {
				return nil, unix.Faccessat2(unix.AT_FDCWD, root+"/"+path, mode, unix.AT_EACCESS)
			}
		}
		for what, flag := range map[string]int{"stat": 0, "lstat": unix.AT_SYMLINK_NOFOLLOW} {
			calls[what+" "+short(path)] = func(root string) (any, error) { return statOf(root+"/"+path, flag) }
		}
		for _, size := range []int{1, 3, 5000} {
			calls[fmt.Sprintf("readlink %s, %d", short(path), size)] = func(root string) (any, error) {
				buf := make([]byte, size)
				n, err := unix.Readlink(root+"/"+path, buf)
				return string(buf[:max(n, 0)]), err
			}
		}
		for _, name := range []string{"user.a", "user.none", "security.capability", "trusted.a", "system.posix_acl_access", "none", ""} {
			for _, size := range []int{0, 2, 100} {
				calls[fmt.Sprintf("getxattr %s, %q, %d", short(path), name, size)] = func(root string) (any, error) {
					return unix.Getxattr(root+"/"+path, name, make([]byte, size))
				}
			}
		}
		calls["listxattr "+short(path)] = func(root string) (any, error) { return unix.Listxattr(root+"/"+path, make([]byte, 2)) }
		calls["read "+short(path)] = func(root string) (any, error) { return readOf(root + "/" + path) }
		calls["list "+short(path)] = func(root string) (any, error) { return listOf(root + "/" + path) }
	}
	for off := int64(-1); off <= 1<<20+4; off = off*3 + 4 {
		for what, whence := range map[string]int{"data": unix.SEEK_DATA, "hole": unix.SEEK_HOLE, "end": unix.SEEK_END} {
			calls[fmt.Sprintf("lseek %s, %d", what, off)] = func(root string) (any, error) {
				var at int64
				err := opened(root+"/hole", func(fd int) (err error) { at, err = unix.Seek(fd, off, whence); return err })
				return at, err
			}
		}
	}
	onDescriptor := map[string]func(fd int) (any, error){
		"read at a negative offset": func(fd int) (any, error) { return unix.Pread(fd, make([]byte, 1), -1) },
		"read at the end":           func(fd int) (any, error) { return unix.Pread(fd, make([]byte, 10), 10_010) },
		"read behind the end":       func(fd int) (any, error) { return unix.Pread(fd, make([]byte, 10), 1<<40) },
		"write":                     func(fd int) (any, error) { return unix.Pwrite(fd, []byte("x"), 0) },
		"ftruncate":                 func(fd int) (any, error) { return nil, unix.Ftruncate(fd, 0) },
		"fallocate":                 func(fd int) (any, error) { return nil, unix.Fallocate(fd, 0, 0, 10) },
		"fsync":                     func(fd int) (any, error) { return nil, unix.Fsync(fd) },
		"lock":                      func(fd int) (any, error) { return nil, unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) },
		"lock a range":              func(fd int) (any, error) { return nil, lockRange(fd, unix.F_RDLCK) },
		"lock a range to write":     func(fd int) (any, error) { return nil, lockRange(fd, unix.F_WRLCK) },
		"map to write, shared":      func(fd int) (any, error) { return nil, mapped(fd, unix.PROT_WRITE, unix.MAP_SHARED) },
		"map to write, private":     func(fd int) (any, error) { return nil, mapped(fd, unix.PROT_WRITE, unix.MAP_PRIVATE) },
		"map to execute":            func(fd int) (any, error) { return nil, mapped(fd, unix.PROT_EXEC, unix.MAP_PRIVATE) },
		"advise":                    func(fd int) (any, error) { return nil, unix.Fadvise(fd, 0, 0, unix.FADV_WILLNEED) },
		"read ahead":                func(fd int) (any, error) { return nil, errnoOf(unix.Syscall(unix.SYS_READAHEAD, uintptr(fd), 0, 10)) },
		"terminal":                  func(fd int) (any, error) { _, err := unix.IoctlGetTermios(fd, unix.TCGETS); return nil, err },
		"list a file":               func(fd int) (any, error) { return unix.Getdents(fd, make([]byte, 4096)) },
	}
	for what, f := range onDescriptor {
		for _, path := range []string{"f", "exec", "d", "hole"} {
			calls[what+" of "+path] = func(root string) (out any, err error) {
				if e := opened(root+"/"+path, func(fd int) error { out, err = f(fd); return nil }); e != nil {
					return nil, e
				}
				if path == "d" && what == "list a file" { // lengths are the filesystem's matter
					out = nil
				}
				return out, err
			}
		}
	}
}

func errnoOf(_, _ uintptr, errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

func opened(path string, f func(fd int) error) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

func lockRange(fd int, kind int16) error {
	return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: kind, Len: 10})
}

func mapped(fd, prot, flags int) error {
	p, err := unix.Mmap(fd, 0, 4096, prot, flags)
	if err != nil {
		return err
	}
	return unix.Munmap(p)
}

// statOf is what stat says, without what is each filesystem's own: inode numbers,
// blocks, and sizes of directories.
func statOf(path string, flags int) (any, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, flags, unix.STATX_BASIC_STATS, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		st.Size = 0
	}
	return fmt.Sprintf("%o %d %d:%d %d %d.%09d", st.Mode, st.Nlink, st.Uid, st.Gid, st.Size, st.Mtime.Sec, st.Mtime.Nsec), nil
}

func readOf(path string) (any, error) {
	buf := make([]byte, 100)
	var n int
	err := opened(path, func(fd int) (err error) { n, err = unix.Read(fd, buf); return err })
	return string(buf[:max(n, 0)]), err
}

// listOf are the names of a directory, read in small parts, again after a rewind,
// and from each position on.
func listOf(path string) (any, error) {
	var names []string
	err := opened(path, func(fd int) error {
		all, offsets, err := entries(fd)
		if err != nil {
			return err
		}
		if _, err = unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			return err
		}
		if again, _, err := entries(fd); err != nil || !slices.Equal(all, again) {
			return fmt.Errorf("after a rewind: %q, %v; at first %q", again, err, all)
		}
		for k, off := range offsets {
			if _, err := unix.Seek(fd, off, unix.SEEK_SET); err != nil {
				return err
			}
			if rest, _, err := entries(fd); err != nil || !slices.Equal(rest, all[k+1:]) {
				return fmt.Errorf("from the position of %s on: %q, %v; at first %q", all[k], rest, err, all[k+1:])
			}
		}
		names = slices.Sorted(slices.Values(all))
		return nil
	})
	return names, err
}

func entries(fd int) (names []string, offsets []int64, err error) {
	buf := make([]byte, 600)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			return names, offsets, err
		}
		for rest := buf[:n]; len(rest) > 0; {
			d := (*unix.Dirent)(unsafe.Pointer(&rest[0]))
			name := rest[unsafe.Offsetof(d.Name):d.Reclen]
			names, offsets = append(names, string(name[:slices.Index(name, 0)])+fmt.Sprintf(":%d", d.Type)), append(offsets, d.Off)
			rest = rest[d.Reclen:]
		}
	}
}
