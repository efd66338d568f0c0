package fs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// play runs a role in a process of its own.
func play(role string, args []string) int {
	roles := map[string]func([]string) error{
		"list": list, "sweep": sweep, "nowritefd": noWriteFD, "scribble": scribble, "read": readOnce, "readahead": readAhead, "pread": preads, "flood": flood,
		"hold": hold, "watch": watch, "look": look, "serve": serveForever, "cwd": sitIn, "statfs": statfs,
		"give": giveAway,
	}
	if err := roles[role](args); err != nil {
		fmt.Fprintf(os.Stderr, "%s %q: %v\n", role, args, err)
		return 1
	}
	return 0
}

// seen is what lstat and friends say of one entry.
type seen struct {
	Path, Target, Sum   string
	Mode, UID, GID      uint32
	Size, Mtime, Blocks int64
	Ino, Links          uint64
	Xattrs              map[string]string
}

// list prints everything below args[0] as JSON lines.
func list(args []string) error {
	out := json.NewEncoder(os.Stdout)
	return filepath.WalkDir(args[0], func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return fmt.Errorf("lstat %s: %w", p, err)
		}
		rel, _ := filepath.Rel(args[0], p)
		s := seen{Path: rel, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Mtime: st.Mtim.Sec*1e9 + st.Mtim.Nsec,
			Blocks: st.Blocks, Ino: st.Ino, Links: uint64(st.Nlink), Xattrs: xattrs(p)}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			s.Target, err = os.Readlink(p)
		case unix.S_IFREG:
			var b []byte
			b, err = os.ReadFile(p)
			s.Sum = fmt.Sprintf("%x", sha256.Sum256(b))
		}
		if err != nil {
			return err
		}
		return out.Encode(s)
	})
}

func xattrs(p string) map[string]string {
	n, err := unix.Llistxattr(p, nil)
	if err != nil || n == 0 {
		return nil
	}
	names := make([]byte, n)
	n, _ = unix.Llistxattr(p, names)
	m := make(map[string]string)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		value := make([]byte, 1<<16)
		k, err := unix.Lgetxattr(p, name, value)
		if err != nil {
			m[name] = err.Error()
			continue
		}
		m[name] = string(value[:k])
	}
	return m
}

// readOnce prints the bytes of file args[0] from offset args[1], args[2] of
// them, as a digest, or the error. It asks for no readahead. args[3], if
// there, is the user to be.
func readOnce(args []string) error {
	if len(args) > 3 {
		uid, _ := strconv.Atoi(args[3])
		if err := join(syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)); err != nil {
			return err
		}
	}
	off, _ := strconv.ParseInt(args[1], 10, 64)
	n, _ := strconv.Atoi(args[2])
	fmt.Println(pread(args[0], off, n))
	return nil
}

// readAhead is readOnce as most programs read: the kernel reads ahead.
func readAhead(args []string) error {
	off, _ := strconv.ParseInt(args[1], 10, 64)
	n, _ := strconv.Atoi(args[2])
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	p := make([]byte, n)
	if _, err := unix.Pread(int(f.Fd()), p, off); err != nil {
		fmt.Println(err)
		return nil
	}
	fmt.Println(digest(p))
	return nil
}

func pread(file string, off int64, n int) string {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM)
	p := make([]byte, n)
	got, err := unix.Pread(fd, p, off)
	if err != nil {
		return err.Error()
	}
	return digest(p[:got])
}

func digest(p []byte) string { return fmt.Sprintf("%d %x", len(p), sha256.Sum256(p)) }

// flood reads 4 KiB of each file in args at once, and prints a line for each
// read that ended.
func flood(args []string) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, f := range args {
		wg.Go(func() {
			s := pread(f, 0, 4096)
			mu.Lock()
			defer mu.Unlock()
			fmt.Println(s)
		})
	}
	wg.Wait()
	return nil
}

// hold opens and maps file args[1] of the mount args[0], sits down in
// directory args[2] there, and answers each line on stdin with all it sees.
func hold(args []string) error {
	if err := os.Chdir(filepath.Join(args[0], args[2])); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(args[0], args[1]))
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		p := make([]byte, st.Size())
		if _, err := f.ReadAt(p, 0); err != nil {
			return err
		}
		wd, err := unix.Getwd() // asks the kernel, not $PWD
		buf := make([]byte, 4096)
		n, lerr := unix.Readlink("/proc/self/cwd", buf)
		var here, path, inner unix.Stat_t
		err = join(err, lerr, unix.Stat(".", &here), unix.Stat(args[0], &path), unix.Lstat(filepath.Join(args[0], args[1]), &inner))
		fmt.Printf("fd=%s map=%s wd=%s link=%s cwdDev=%d pathDev=%d fileDev=%d fdDev=%d err=%v\n", digest(p)[:16], digest(m)[:16],
			wd, buf[:n], here.Dev, path.Dev, inner.Dev, mustDev(f), err)
	}
	return nil
}

func join(errs ...error) error {
	i := slices.IndexFunc(errs, func(e error) bool { return e != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}

func mustDev(f *os.File) uint64 {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	return st.Dev
}

// sitIn has the directory args[0] as its working directory until stdin ends.
func sitIn(args []string) error {
	if err := os.Chdir(args[0]); err != nil {
		return err
	}
	fmt.Println("ready")
	bufio.NewScanner(os.Stdin).Scan()
	return nil
}

// serveForever mounts a release at args[0] and waits to be killed.
func serveForever(args []string) error {
	tr := smallTree()
	place, err := Prepare(context.Background(), args[0], nil)
	if err != nil {
		return err
	}
	_, err = Mount(context.Background(), Config{Tree: tr, Content: newMemory(tr), Place: place, Version: "dead",
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	bufio.NewScanner(os.Stdin).Scan()
	return nil
}

func statfs(args []string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(args[0], &st); err != nil {
		return err
	}
	fmt.Printf("%d %d %d %d %d", st.Blocks, st.Bsize, st.Bfree, st.Files, st.Namelen)
	return nil
}
