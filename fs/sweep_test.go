package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempt is one call that would write, and how it ended.
type attempt struct {
	name string
	err  error
}

// sweep tries every call that writes and prints its errno. args: mountpoint,
// a file, an empty directory and a symlink below it.
func sweep(args []string) error {
	mp, file, dir, link := args[0], args[0]+"/"+args[1], args[0]+"/"+args[2], args[0]+"/"+args[3]
	all := append(sweepOpen(mp, file, dir), sweepNames(mp, file, dir, link)...)
	all = append(all, sweepMetadata(file, dir, link)...)
	for _, a := range all {
		fmt.Printf("%s: %v\n", a.name, a.err)
	}
	return nil
}

func sweepOpen(mp, file, dir string) []attempt {
	open := func(p string, flags int) error {
		fd, err := unix.Open(p, flags|unix.O_CLOEXEC, 0o644)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	creat := func(p string) error {
		fd, err := unix.Openat2(unix.AT_FDCWD, p, &unix.OpenHow{Flags: unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY, Mode: 0o600})
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	return []attempt{
		{"create", open(mp+"/new", unix.O_CREAT|unix.O_WRONLY)},
		{"create to read", open(mp+"/new", unix.O_CREAT|unix.O_RDONLY)},
		{"create anew", open(dir+"/new", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR)},
		{"openat2 create", creat(mp + "/new")},
		{"tmpfile", open(dir, unix.O_TMPFILE|unix.O_RDWR)},
		{"open for writing", open(file, unix.O_WRONLY)},
		{"open for both", open(file, unix.O_RDWR)},
		{"open for writing, directly", open(file, unix.O_RDWR|unix.O_DIRECT)},
		{"open to append", open(file, unix.O_WRONLY|unix.O_APPEND)},
		{"open to truncate", open(file, unix.O_WRONLY|unix.O_TRUNC)},
		{"open to truncate and read", open(file, unix.O_RDONLY|unix.O_TRUNC)},
		{"create what is there, for writing", open(file, unix.O_CREAT|unix.O_RDWR)},
		{"truncate", unix.Truncate(file, 0)},
		{"truncate to grow", unix.Truncate(file, 1<<40)},
		{"access for writing", unix.Faccessat(unix.AT_FDCWD, file, unix.W_OK, 0)},
	}
}

func sweepNames(mp, file, dir, link string) []attempt {
	const cwd = unix.AT_FDCWD
	bind := func(p string) error {
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		return unix.Bind(s, &unix.SockaddrUnix{Name: p})
	}
	return []attempt{
		{"mkdir", unix.Mkdir(mp+"/new", 0o755)},
		{"mkdirat", unix.Mkdirat(cwd, dir+"/new", 0o755)},
		{"rmdir", unix.Rmdir(dir)},
		{"unlink", unix.Unlink(file)},
		{"unlink a symlink", unix.Unlink(link)},
		{"unlinkat a directory", unix.Unlinkat(cwd, dir, unix.AT_REMOVEDIR)},
		{"rename", unix.Rename(file, mp+"/new")},
		{"rename a directory", unix.Rename(dir, mp+"/new")},
		{"rename over another", unix.Rename(link, file)},
		{"rename, no replace", unix.Renameat2(cwd, file, cwd, mp+"/new", unix.RENAME_NOREPLACE)},
		{"rename, exchange", unix.Renameat2(cwd, file, cwd, link, unix.RENAME_EXCHANGE)},
		{"link", unix.Link(file, mp+"/new")},
		{"link a symlink", unix.Linkat(cwd, link, cwd, dir+"/new", 0)},
		{"symlink", unix.Symlink("x", mp+"/new")},
		{"mknod file", unix.Mknod(mp+"/new", unix.S_IFREG|0o644, 0)},
		{"mknod fifo", unix.Mknod(mp+"/new", unix.S_IFIFO|0o644, 0)},
		{"mknod socket", unix.Mknod(mp+"/new", unix.S_IFSOCK|0o644, 0)},
		{"mknod character device", unix.Mknod(mp+"/new", unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3)))},
		{"mknod block device", unix.Mknod(mp+"/new", unix.S_IFBLK|0o644, int(unix.Mkdev(7, 0)))},
		{"bind a socket", bind(filepath.Join(mp, "sock"))},
	}
}

func sweepMetadata(file, dir, link string) []attempt {
	times := make([]unix.Timespec, 2)
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return []attempt{{"open for reading", err}}
	}
	defer unix.Close(fd)
	return []attempt{
		{"chmod", unix.Chmod(file, 0o777)},
		{"chmod a directory", unix.Chmod(dir, 0o700)},
		{"chmod to the same", unix.Fchmodat(unix.AT_FDCWD, file, 0o644, 0)},
		{"fchmod", unix.Fchmod(fd, 0o777)},
		{"chown", unix.Chown(file, 1, 1)},
		{"lchown", unix.Lchown(link, 1, 1)},
		{"fchown", unix.Fchown(fd, 1, 1)},
		{"chown to nobody new", unix.Chown(file, -1, -1)},
		{"utimensat", unix.UtimesNanoAt(unix.AT_FDCWD, file, times, 0)},
		{"utimensat of a symlink", unix.UtimesNanoAt(unix.AT_FDCWD, link, times, unix.AT_SYMLINK_NOFOLLOW)},
		{"futimens", futimens(fd, times)},
		{"setxattr", unix.Setxattr(file, "user.new", []byte("x"), 0)},
		{"setxattr that is there", unix.Setxattr(file, "user.a", []byte("x"), unix.XATTR_REPLACE)},
		{"setxattr of a directory", unix.Setxattr(dir, "user.new", []byte("x"), 0)},
		{"lsetxattr", unix.Lsetxattr(link, "trusted.new", []byte("x"), 0)},
		{"fsetxattr", unix.Fsetxattr(fd, "user.new", []byte("x"), 0)},
		{"set an ACL", unix.Setxattr(file, "system.posix_acl_access", acl(1, 4), 0)},
		{"set a capability", unix.Setxattr(file, "security.capability", append(binary.LittleEndian.AppendUint32(nil, 0x02000000), make([]byte, 16)...), 0)},
		{"removexattr", unix.Removexattr(file, "user.a")},
		{"fremovexattr", unix.Fremovexattr(fd, "user.a")},
		{"lremovexattr", unix.Lremovexattr(link, "trusted.new")},
	}
}

func futimens(fd int, times []unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times[0])), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// noWriteFD are the calls that write through a descriptor: none can be had that
// is open for writing, so they end at the descriptor. It prints their errnos.
func noWriteFD(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, write := unix.Write(fd, []byte("x"))
	_, pwrite := unix.Pwrite(fd, []byte("x"), 0)
	_, shared := unix.Mmap(fd, 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	for _, a := range []attempt{
		{"write", write}, {"pwrite", pwrite}, {"shared writable map", shared},
		{"ftruncate", unix.Ftruncate(fd, 0)},
		{"fallocate", unix.Fallocate(fd, 0, 0, 4096)},
		{"punch a hole", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1)},
	} {
		fmt.Printf("%s: %v\n", a.name, a.err)
	}
	return nil
}

// scribble opens the file args[0] to be written to, which works only on a mount
// that somebody made writable, and prints how a write ends.
func scribble(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		_, err = unix.Pwrite(fd, []byte("scribble"), 0)
	}
	fmt.Print(err)
	return nil
}

// Read-only is what the kernel makes of it, whatever is tried.
func TestWritingIsRefused(t *testing.T) {
	tr := richTree()
	mp := t.TempDir()
	mountAt(t, mp, Config{Tree: tr, Content: newMemory(tr)})
	checkSweep(t, mp, "attrs", "dir/empty", "link")
	for line := range strings.Lines(run(t, "nowritefd", mp+"/attrs")) {
		if strings.HasSuffix(strings.TrimSpace(line), "<nil>") {
			t.Error(line)
		}
	}
}

// Root can remount it to be written to; nothing can be written all the same.
func TestWritingIsRefusedWhenRemounted(t *testing.T) {
	tr := richTree()
	mp := t.TempDir()
	mountAt(t, mp, Config{Tree: tr, Content: newMemory(tr)})
	before := run(t, "list", mp)
	if err := errors.Join(unix.Mount("", mp, "", unix.MS_REMOUNT, ""), unix.Mount("", mp, "", unix.MS_REMOUNT|unix.MS_BIND, "")); err != nil {
		t.Skip("this kernel does not remount it to be written to:", err)
	}
	// The kernel opens files without asking.
	checkSweep(t, mp, "attrs", "dir/empty", "link", "open for writing", "open for both", "open for writing, directly",
		"open to append", "create what is there, for writing", "access for writing")
	if got := run(t, "scribble", mp+"/attrs"); got != unix.EROFS.Error() {
		t.Errorf("a write ends with %q", got)
	}
	if after := run(t, "list", mp); after != before {
		t.Error("the tree is another than before")
	}
}

// The copy that stands at the path after the handover is as read-only.
func TestWritingIsRefusedAfterHandover(t *testing.T) {
	tr := build(dir("d"), dir("e"), file("d/a", 100), file("b", 3))
	m := newMemory(tr)
	top := t.TempDir()
	mp, dest := filepath.Join(top, "mp"), filepath.Join(top, "dest")
	copyOf(t, tr, m, dest)
	s := mountAt(t, mp, Config{Tree: tr, Content: m})
	t.Cleanup(func() { unmountAll(t, mp) })
	if err := s.Handover(dest); err != nil {
		t.Fatal(err)
	}
	checkSweep(t, mp, "d/a", "e", "b")
}

// checkSweep holds that every call but the excepted ends with EROFS.
func checkSweep(t *testing.T, mp, file, dir, link string, except ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(run(t, "sweep", mp, file, dir, link)), "\n")
	if len(lines) < 55 {
		t.Errorf("only %d calls tried", len(lines))
	}
	for _, line := range lines {
		name, result, _ := strings.Cut(line, ": ")
		if result != unix.EROFS.Error() && !slices.Contains(except, name) {
			t.Error(line)
		}
	}
}
