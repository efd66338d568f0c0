package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// actor is a role that goes on until its stdin closes.
type actor struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(t testing.TB, cmd *exec.Cmd) *actor {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := &actor{cmd, in, bufio.NewScanner(out)}
	a.out.Buffer(nil, 1<<20) // the longest answer
	t.Cleanup(a.stop)
	if !a.out.Scan() || a.out.Text() != "ready" {
		t.Fatalf("%q did not start: %q", cmd.Args, a.out.Text())
	}
	return a
}

func (a *actor) ask(t testing.TB) string {
	t.Helper()
	fmt.Fprintln(a.in)
	if !a.out.Scan() {
		t.Fatalf("%q has ended", a.cmd.Args)
	}
	return a.out.Text()
}

func (a *actor) stop() {
	a.in.Close()
	_ = a.cmd.Wait()
}

func deadline(t testing.TB, d time.Duration) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), d)
	t.Cleanup(stop)
	return ctx
}

func TestUnmountLeavesNothing(t *testing.T) {
	mp := t.TempDir()
	tr := smallTree()
	s := mountAt(t, mp, Config{Tree: tr, Content: newMemory(tr)})
	run(t, "list", mp)
	if err := s.Unmount(deadline(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(mp); err != nil || len(names) != 0 {
		t.Errorf("left in place: %v, %v", names, err)
	}
	if got := mountsAt(t, mp); got != nil {
		t.Errorf("mounts %q", got)
	}
	if err := s.Unmount(t.Context()); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// A mount in use is waited for, then taken away all the same.
func TestUnmountOfABusyMount(t *testing.T) {
	mp := t.TempDir()
	tr := smallTree()
	log := &logs{}
	s := mountAt(t, mp, Config{Tree: tr, Content: newMemory(tr), Log: log.logger()})
	sitter := start(t, role(t, "cwd", mp+"/d"))
	if err := s.Unmount(deadline(t, 200*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "detaching it lazily") || len(mountsAt(t, mp)) != 0 {
		t.Errorf("mounts %q, log:\n%s", mountsAt(t, mp), log)
	}
	sitter.stop()
}

func TestUnmountWaitsForTheLastUser(t *testing.T) {
	mp := t.TempDir()
	tr := smallTree()
	log := &logs{}
	s := mountAt(t, mp, Config{Tree: tr, Content: newMemory(tr), Log: log.logger()})
	sitter := start(t, role(t, "cwd", mp+"/d"))
	if err := s.umount(0); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("got %v, want EBUSY", err)
	}
	result := make(chan error, 1)
	go func() { result <- s.Unmount(deadline(t, 10*time.Second)) }()
	sitter.stop()
	if err := <-result; err != nil || log.String() != "" {
		t.Errorf("%v, log:\n%s", err, log)
	}
}

// A reader that waits for ever must not keep the process from ending.
func TestUnmountEndsBlockedReads(t *testing.T) {
	mp := t.TempDir()
	tr := smallTree()
	m := newMemory(tr)
	m.close(0, tr.Total())
	s := mountAt(t, mp, Config{Tree: tr, Content: m, ReadTimeout: time.Hour})
	reader := role(t, "read", mp+"/d/a", "0", "4096")
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	<-m.waiting
	if err := s.Unmount(deadline(t, 200*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := reader.Wait(); err != nil {
		t.Error(err)
	}
}

func TestDoneAfterSomebodyElsesUmount(t *testing.T) {
	top := t.TempDir()
	mp := filepath.Join(top, "mp")
	tr := smallTree()
	s := mountAt(t, mp, Config{Tree: tr, Content: newMemory(tr)})
	run(t, "list", mp)
	if out, err := exec.Command("umount", mp).CombinedOutput(); err != nil {
		t.Fatalf("umount: %v %s", err, out)
	}
	if err := s.Wait(deadline(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := mountsAt(t, mp); got != nil {
		t.Errorf("mounts %q", got)
	}
}

func TestStaleMountIsReplaced(t *testing.T) {
	needFUSE(t)
	mp := t.TempDir()
	t.Cleanup(func() { unmountAll(t, mp) })
	dead := start(t, role(t, "serve", mp))

	var log logs
	_, err := Prepare(t.Context(), mp, log.logger())
	if !errors.Is(err, ErrMountpoint) || !strings.Contains(err.Error(), "dcfs:dead is live") {
		t.Errorf("over a live mount: %v", err)
	}
	if err := dead.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = dead.cmd.Wait()
	if len(mountsAt(t, mp)) != 1 {
		t.Fatal("the dead mount is not there")
	}
	tr := smallTree()
	m := newMemory(tr)
	mountAt(t, mp, Config{Tree: tr, Content: m, Log: log.logger()})
	if !strings.Contains(log.String(), "detached the mount of a dead process") || len(mountsAt(t, mp)) != 1 {
		t.Errorf("mounts %q, log:\n%s", mountsAt(t, mp), &log)
	}
	if got, want := strings.TrimSpace(run(t, "read", mp+"/b", "0", "10")), digest(m.file(tr, "b")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPrepareRefuses(t *testing.T) {
	needFUSE(t)
	top := t.TempDir()
	full, plain := filepath.Join(top, "full"), filepath.Join(top, "plain")
	if err := os.MkdirAll(filepath.Join(full, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(top, "dangling")); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := unix.Mount("other", other, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountAll(t, other) })
	for name, c := range map[string]struct {
		path string
		want string
	}{
		"not empty":      {full, "is not empty"},
		"a file":         {plain, "is not a directory"},
		"below a file":   {plain + "/x", "not a directory"},
		"missing":        {filepath.Join(top, "no", "such"), "mkdir -p"},
		"dangling":       {filepath.Join(top, "dangling"), "mkdir -p"},
		"another mount":  {other, "other is mounted at"},
		"the filesystem": {"/", "mounted at / "},
	} {
		_, err := Prepare(t.Context(), c.path, nil)
		if !errors.Is(err, ErrMountpoint) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if names, _ := os.ReadDir(top); len(names) != 3 {
		t.Errorf("left behind: %v", names)
	}
}

func TestPrepareFollowsSymlinks(t *testing.T) {
	needFUSE(t)
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(top, "real", "mp"), 0o755); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"abs": filepath.Join(top, "real"), "mp": "abs/mp"} {
		if err := os.Symlink(to, filepath.Join(top, from)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Prepare(t.Context(), filepath.Join(top, "mp"), nil)
	if err != nil || p.Path != filepath.Join(top, "real", "mp") {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestMountThatIsCalledOff(t *testing.T) {
	needFUSE(t)
	mp := t.TempDir()
	place, err := Prepare(t.Context(), mp, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	tr := smallTree()
	if _, err := Mount(ctx, Config{Tree: tr, Content: newMemory(tr), Place: place}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if m, err := topMount(mp); m != nil || err != nil {
		t.Errorf("left behind: %v, %v", m, err)
	}
}
