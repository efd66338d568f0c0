package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/fs/tree"
)

const sharedEnv = "DCFS_FS_TEST_SHARED"

// copyOf writes the files of tr below dir, as materialise would.
func copyOf(t testing.TB, tr *tree.Tree, m *memory, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for id := tree.ID(1); int(id) < tr.Len(); id++ {
		p := filepath.Join(dir, tr.Path(id))
		var err error
		if tr.Kind(id) == tree.Dir {
			err = os.MkdirAll(p, 0o755)
		} else {
			err = os.WriteFile(p, m.file(tr, tr.Path(id)), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// watch reads args[0] over and over by its path until stdin ends and prints
// how often that failed.
func watch(args []string) error {
	fmt.Println("ready")
	end := make(chan bool)
	go func() { bufio.NewScanner(os.Stdin).Scan(); close(end) }()
	for n, failed, first := 0, 0, error(nil); ; n++ {
		select {
		case <-end:
			fmt.Printf("failed=%d first=%v some=%t\n", failed, first, n > 0)
			return nil
		default:
		}
		b, err := os.ReadFile(args[0])
		if err == nil && digest(b) != args[1] {
			err = errors.New("wrong bytes")
		}
		if err != nil {
			failed++
			first = join(first, err)
		}
	}
}

// look answers each line on stdin with what the path args[0] leads to.
func look(args []string) error {
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var st unix.Statfs_t
		err := unix.Statfs(args[0], &st)
		fmt.Printf("fuse=%t err=%v\n", st.Type == unix.FUSE_SUPER_MAGIC, err)
	}
	return nil
}

// The whole way: readers, holders, the cover, the wait until nobody holds the
// mount below, and its end. Run on the host's mounts as they are, and again in
// a namespace where everything is shared, as systemd has it.
func TestHandover(t *testing.T) {
	needFUSE(t)
	tr := smallTree()
	m := newMemory(tr)
	top := t.TempDir()
	mp, dest := filepath.Join(top, "mp"), filepath.Join(top, "dest")
	copyOf(t, tr, m, dest)
	s := mountAt(t, mp, Config{Tree: tr, Content: m})
	t.Cleanup(func() { unmountAll(t, mp) })

	holder := start(t, role(t, "hold", mp, "d/a", "d"))
	sitter := start(t, role(t, "cwd", mp))
	watchers := []*actor{
		start(t, role(t, "watch", mp+"/b", digest(m.file(tr, "b")))),
		start(t, role(t, "watch", mp+"/d/a", digest(m.file(tr, "d/a")))),
	}
	elsewhere := inSlaveNamespace(t, mp)
	before := holder.ask(t)

	if err := s.Handover(dest); err != nil {
		t.Fatal(err)
	}
	if err := s.Handover(dest); err == nil {
		t.Error("a second handover was accepted")
	}
	checkCovered(t, before, holder.ask(t))
	if got := mountsAt(t, mp); len(got) != 2 {
		t.Errorf("mounts %q", got)
	}
	if err := s.Idle(deadline(t, 100*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("idle with holders: %v", err)
	}
	holder.stop()
	if err := s.Idle(deadline(t, 1200*time.Millisecond)); err == nil || !strings.Contains(err.Error(), "cwd") {
		t.Errorf("idle with a working directory in the root: %v", err)
	}
	sitter.stop()
	if err := s.Idle(deadline(t, 10*time.Second)); err != nil {
		t.Errorf("nobody is left: %v", err)
	}
	// One who sits in the native copy keeps his place when the mount below goes.
	native := start(t, role(t, "hold", mp, "d/a", "d"))
	settled := native.ask(t)
	if err := s.Unmount(deadline(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
	if got := native.ask(t); got != settled {
		t.Errorf("the native holder saw\n%s, before\n%s", got, settled)
	}
	for _, w := range watchers {
		if got := w.ask(t); got != "failed=0 first=<nil> some=true" {
			t.Errorf("a reader across all of it: %s", got)
		}
	}
	if got := elsewhere.ask(t); got != "fuse=false err=<nil>" {
		t.Errorf("another namespace: %s", got)
	}
	checkNative(t, mp, dest)
}

// checkCovered compares what a holder saw before and after: the same bytes and
// places, but the path leads elsewhere.
func checkCovered(t *testing.T, before, after string) {
	t.Helper()
	moved := regexp.MustCompile(`(pathDev|fileDev)=\d+`)
	if moved.ReplaceAllString(before, "") != moved.ReplaceAllString(after, "") || !strings.HasSuffix(after, "err=<nil>") {
		t.Errorf("a holder saw\n%s, before\n%s", after, before)
	}
	if a, b := moved.FindAllString(before, -1), moved.FindAllString(after, -1); a[0] == b[0] || a[1] == b[1] {
		t.Errorf("new lookups still see the FUSE mount: %s", after)
	}
}

// checkNative holds that only the bind of dest is at mp, read-only.
func checkNative(t *testing.T, mp, dest string) {
	t.Helper()
	got := mountsAt(t, mp)
	if len(got) != 1 || strings.Contains(got[0], "fuse") || !strings.Contains(got[0], " ro,nodev") {
		t.Errorf("mounts %q", got)
	}
	b, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(b), ".dcfs-") {
		t.Errorf("a staging mount is left:\n%s", b)
	}
	if names, _ := filepath.Glob(filepath.Join(os.TempDir(), ".dcfs-*")); len(names) != 0 {
		t.Errorf("left behind: %q", names)
	}
	var a, c unix.Stat_t
	if err := errors.Join(unix.Stat(mp, &a), unix.Stat(dest, &c)); err != nil || a.Ino != c.Ino || a.Dev != c.Dev {
		t.Errorf("%s is not %s: %v", mp, dest, err)
	}
}

// inSlaveNamespace starts a looker where mounts of ours arrive but none go
// back, as in a service with PrivateTmp. With private mounts it sees nothing of
// the mount if started before it, and holds a copy for ever if started after,
// so there it is a plain process.
func inSlaveNamespace(t *testing.T, mp string) *actor {
	cmd := role(t, "look", mp)
	if os.Getenv(sharedEnv) != "" {
		unshare, err := exec.LookPath("unshare")
		if err != nil {
			t.Log("SKIPPED: no unshare(1), so no second namespace")
			return start(t, cmd)
		}
		cmd.Args = append([]string{unshare, "-m", "--propagation", "slave", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = unshare
	}
	a := start(t, cmd)
	if got := a.ask(t); got != "fuse=true err=<nil>" {
		t.Errorf("another namespace: %s", got)
	}
	return a
}

// TestHandoverOnSharedMounts runs TestHandover in a namespace of its own.
func TestHandoverOnSharedMounts(t *testing.T) {
	needFUSE(t)
	if os.Getenv(sharedEnv) != "" {
		t.Skip("this is that namespace")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestHandover$", "-test.v")
	cmd.Env = append(os.Environ(), sharedEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestHandover") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Somebody who came late and still holds the mount is served until ctx ends.
func TestHandoverEndsWithAHolder(t *testing.T) {
	tr := smallTree()
	m := newMemory(tr)
	top := t.TempDir()
	mp, dest := filepath.Join(top, "mp"), filepath.Join(top, "dest")
	copyOf(t, tr, m, dest)
	log := &logs{}
	s := mountAt(t, mp, Config{Tree: tr, Content: m, Log: log.logger()})
	t.Cleanup(func() { unmountAll(t, mp) })
	start(t, role(t, "cwd", mp+"/d"))
	if err := s.Handover(dest); err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(deadline(t, 300*time.Millisecond)); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "covered mount is still in use") {
		t.Errorf("log:\n%s", log)
	}
	checkNative(t, mp, dest)
}

func TestHandoverRefuses(t *testing.T) {
	tr := smallTree()
	mp := t.TempDir()
	s := mountAt(t, mp, Config{Tree: tr, Content: newMemory(tr)})
	for _, dest := range []string{"relative", mp, mp + "/d", filepath.Join(t.TempDir(), "missing")} {
		if err := s.Handover(dest); err == nil {
			t.Errorf("%s was accepted", dest)
		}
	}
	if got := mountsAt(t, mp); len(got) != 1 {
		t.Errorf("mounts %q", got)
	}
}
