package integration

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// roleEnv makes the test binary play a role in a process of its own, so that a
// mount that hangs hangs that one.
const roleEnv = "DCFS_INTEGRATION_ROLE"

// play plays a role and returns its exit code.
func play(role string, args []string) int {
	roles := map[string]func([]string) error{"touch": touch, "stay": stay, "probe": probe, "misbehave": misbehave}
	if err := roles[role](args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		return 1
	}
	return 0
}

// entry is what a tree shows of one of its paths.
type entry struct {
	Mode   uint32
	Size   int64
	Text   string   // a symlink's target, a file's SHA-256
	Names  []string // of a directory
	IsTool bool     // can be run
}

// look reads one path with lstat, open, read, readdir and readlink.
func look(path string) (entry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return entry{}, fmt.Errorf("lstat %s: %w", path, err)
	}
	e := entry{Mode: st.Mode}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		list, err := os.ReadDir(path)
		for _, d := range list {
			e.Names = append(e.Names, d.Name())
		}
		return e, err
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		e.Text = target
		return e, err
	default:
		b, err := os.ReadFile(path)
		e.Size, e.Text = st.Size, fmt.Sprintf("%x", sha256.Sum256(b))
		e.IsTool = strings.HasSuffix(path, "/runs")
		return e, err
	}
}

// looks is what a tree shows, by path.
func looks(dir string) (map[string]entry, error) {
	all := make(map[string]entry)
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		all[rel], err = look(p)
		return err
	})
	return all, err
}

func (e entry) equal(o entry) bool {
	return e.Mode == o.Mode && e.Size == o.Size && e.Text == o.Text && slices.Equal(e.Names, o.Names)
}

// touched is what touch found.
type touched struct {
	Rounds, Fuse, Native int // passes over the tree, and on what
	Errors               []string
}

// touch goes over the tree args[0] again and again until stdin ends, and
// compares it with what args[1] says. It prints "ready" after a first look, and
// at the end what it found.
func touch(args []string) error {
	b, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	want := make(map[string]entry)
	if err := json.Unmarshal(b, &want); err != nil {
		return err
	}
	end := make(chan struct{})
	go func() { bufio.NewScanner(os.Stdin).Scan(); close(end) }()
	var found touched
	fmt.Println("ready")
	for {
		select {
		case <-end:
			return json.NewEncoder(os.Stdout).Encode(found)
		default:
			found.pass(args[0], want)
		}
	}
}

func (f *touched) pass(dir string, want map[string]entry) {
	complain := func(format string, args ...any) {
		if len(f.Errors) < 20 {
			f.Errors = append(f.Errors, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		complain("statfs: %v", err)
	} else if st.Type == unix.FUSE_SUPER_MAGIC {
		f.Fuse++
	} else {
		f.Native++
	}
	for rel, w := range want {
		got, err := look(filepath.Join(dir, rel))
		if err != nil || !got.equal(w) {
			complain("%s: %v: got %+v, want %+v", rel, err, got, w)
		}
		if w.IsTool {
			if out, err := exec.Command(filepath.Join(dir, rel), "it runs").Output(); err != nil || string(out) != "it runs\n" {
				complain("exec %s: %v, %q", rel, err, out)
			}
		}
	}
	f.Rounds++
}

// stay uses the tree args[0] for long: it sits in its directory args[1], has
// its file args[2] open and mapped, and runs args[3]. It prints "ready", and
// answers each line on stdin with "ok" or what is wrong.
func stay(args []string) error {
	if err := os.Chdir(filepath.Join(args[0], args[1])); err != nil {
		return err
	}
	path := filepath.Join(args[0], args[2])
	want, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	mapped, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	names, err := os.ReadDir(".")
	if err != nil {
		return err
	}
	running := exec.Command(filepath.Join(args[0], args[3]), "3600")
	running.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := running.Start(); err != nil {
		return err
	}
	defer func() { _ = running.Process.Kill(); _ = running.Wait() }()
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		// Out of the kernel's caches, so that whoever serves it is asked.
		_ = unix.Madvise(mapped, unix.MADV_DONTNEED)
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		got := make([]byte, len(want))
		_, err := f.ReadAt(got, 0)
		again, derr := os.ReadDir(".")
		state, serr := os.ReadFile(fmt.Sprintf("/proc/%d/stat", running.Process.Pid))
		_, xerr := os.Stat(fmt.Sprintf("/proc/%d/exe", running.Process.Pid))
		switch {
		case err != nil || !bytes.Equal(got, want):
			fmt.Println("the open file:", err)
		case !bytes.Equal(mapped, want):
			fmt.Println("the mapped file differs")
		case derr != nil || len(again) != len(names):
			fmt.Println("the working directory:", derr, len(again))
		case serr != nil || xerr != nil || strings.Contains(string(state), ") Z "):
			fmt.Println("the running program:", serr, xerr, string(state))
		default:
			fmt.Println("ok")
		}
	}
	return nil
}
