package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

var handovers = flag.Int("handovers", 3, "how many handovers TestHandovers makes; `make soak` makes 200")

// actor is a role in a process of its own, on a host.
type actor struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (n *node) act(t *testing.T, role string, args ...string) *actor {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := n.Command(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Dir = "/" // not in what is mounted
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	a := &actor{cmd, in, bufio.NewReader(out)}
	t.Cleanup(func() { in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line := a.line(); line != "ready" {
		t.Fatalf("%s does not start: %q", role, line)
	}
	return a
}

func (a *actor) line() string {
	line, err := a.out.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(line)
}

func (a *actor) ask() string {
	fmt.Fprintln(a.in)
	return a.line()
}

// end lets the actor end and returns its last word.
func (a *actor) end() string {
	a.in.Close()
	line := a.line()
	_ = a.cmd.Wait()
	return line
}

// useLab is a life lab whose release can be run, and its contents in a file.
type useLab struct {
	*lifeLab
	manifest string
}

func newUseLab(t *testing.T) *useLab {
	t.Helper()
	lab.Require(t, lab.Root, lab.FUSE)
	l := &useLab{lifeLab: &lifeLab{Lab: lab.New(t, "origin", "host")}}
	l.o = newOrigin(t, l.Host("origin"))
	l.source = sampleTree(t, 60, 3, 700<<10)
	for _, name := range []string{"echo", "sleep"} {
		path, err := exec.LookPath(name)
		must(t, err)
		b, err := os.ReadFile(path)
		must(t, err)
		to := map[string]string{"echo": "runs", "sleep": "stays"}[name]
		must(t, os.WriteFile(filepath.Join(l.source, "bin", to), b, 0o755))
	}
	want, err := looks(l.source)
	must(t, err)
	b, err := json.Marshal(want)
	must(t, err)
	l.manifest = filepath.Join(t.TempDir(), "manifest.json")
	must(t, os.WriteFile(l.manifest, b, 0o644))
	l.release = l.o.publish(l.source, "app/used")
	l.n = l.o.newNode(l.Host("host"))
	return l
}

// use mounts the release and starts to use it, before much of it is here.
func (l *useLab) use(t *testing.T, name, atEnd string) (mountpoint string, p *lab.Process, loop, user *actor) {
	t.Helper()
	mountpoint = filepath.Join(l.n.Mnt(), name)
	must(t, os.MkdirAll(mountpoint, 0o755))
	// Whatever earlier rounds left is not to be reused: everything comes anew.
	must(t, os.RemoveAll(l.n.State()))
	p = l.n.daemon(name, "mount", l.release.file, mountpoint, "--dest", filepath.Join(l.n.Releases(), name),
		"--linger", "300ms", "--at-end", atEnd, "--down", "8MiB")
	t.Cleanup(func() { p.Kill(); must(t, l.n.Unmount(mountpoint)) })
	l.says(t, p, "state=mounted")
	loop = l.n.act(t, "touch", mountpoint, l.manifest)
	user = l.n.act(t, "stay", mountpoint, "lib/01", "big/01.bin", "bin/stays")
	return mountpoint, p, loop, user
}

func (l *useLab) says(t *testing.T, p *lab.Process, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.WaitLog(ctx, text); err != nil {
		t.Fatalf("%v\n%s", err, p.Tail(40))
	}
}

// found checks what a loop saw: no error, no wrong byte.
func found(t *testing.T, loop *actor) (f touched) {
	t.Helper()
	if err := json.Unmarshal([]byte(loop.end()), &f); err != nil {
		t.Fatalf("the loop says %v", err)
	}
	if len(f.Errors) > 0 || f.Rounds == 0 {
		t.Errorf("%d rounds, and these errors:\n%s", f.Rounds, strings.Join(f.Errors, "\n"))
	}
	return f
}

// TestHandovers: whoever uses the mount when the path turns native — in a loop
// of stat, open, read, readdir and exec, or for long, with open and mapped
// files, a working directory and a running program — sees nothing of it; the
// process ends when the last of them is gone.
func TestHandovers(t *testing.T) {
	l := newUseLab(t)
	var sum touched
	for i := range *handovers {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			mountpoint, p, loop, user := l.use(t, fmt.Sprintf("h%d", i), "handover")
			l.says(t, p, "state=lingering")
			if got := user.ask(); got != "ok" {
				t.Errorf("after the handover: %s", got)
			}
			time.Sleep(500 * time.Millisecond) // the linger is over
			if got := user.ask(); got != "ok" || !p.Running() {
				t.Errorf("one who uses the mount still: %s; the process runs: %t", got, p.Running())
			}
			user.end()
			l.exits(t, p, 0)
			f := found(t, loop)
			if f.Native == 0 {
				t.Error("the loop never saw the native copy")
			}
			sum.Fuse, sum.Native, sum.Rounds = sum.Fuse+f.Fuse, sum.Native+f.Native, sum.Rounds+f.Rounds
			if kind := l.n.FSType(mountpoint); strings.HasPrefix(kind, "fuse") {
				t.Errorf("the path is still %s", kind)
			}
			must(t, l.n.Unmount(mountpoint))
			must(t, os.RemoveAll(filepath.Join(l.n.Releases(), filepath.Base(mountpoint))))
		})
	}
	t.Logf("%d handovers: %d passes over the tree, %d of them on FUSE, %d native; no error", *handovers, sum.Rounds, sum.Fuse, sum.Native)
	if sum.Fuse == 0 {
		t.Error("the loops never saw the FUSE mount: the test shows nothing")
	}
}

// rounds runs do, once or, in a soak, for every fourth handover, each time with
// a name of its own.
func rounds(t *testing.T, do func(t *testing.T, name string)) {
	for i := range max(1, *handovers/4) {
		name := fmt.Sprint("r", i)
		t.Run(name, func(t *testing.T) { do(t, name) })
	}
}

// TestAtEndUnmount: users who leave in time see no error, and the mount goes.
func TestAtEndUnmount(t *testing.T) {
	l := newUseLab(t)
	rounds(t, func(t *testing.T, name string) {
		mountpoint, p, loop, user := l.use(t, name, "unmount")
		l.says(t, p, "state=lingering")
		if got := user.ask(); got != "ok" {
			t.Error(got)
		}
		user.end()
		if f := found(t, loop); f.Native != 0 || f.Fuse == 0 {
			t.Errorf("%d passes on the mount, %d on something else", f.Fuse, f.Native)
		}
		l.exits(t, p, 0)
		if left := l.n.MountsBelow(l.n.Dir); len(left) > 0 {
			t.Errorf("%s is left: %v", mountpoint, left)
		}
		must(t, os.RemoveAll(filepath.Join(l.n.Releases(), name)))
	})
}

// TestAtEndKeep: the mount serves on after the linger, with nobody to fetch
// from, until the process is told to end.
func TestAtEndKeep(t *testing.T) {
	l := newUseLab(t)
	rounds(t, func(t *testing.T, name string) {
		_, p, loop, user := l.use(t, name, "keep")
		l.says(t, p, "the mount stays until the process is told to end")
		l.o.Cut()
		time.Sleep(500 * time.Millisecond)
		if got := user.ask(); got != "ok" {
			t.Error(got)
		}
		user.end()
		if f := found(t, loop); f.Native != 0 || f.Fuse == 0 || !p.Running() {
			t.Errorf("%d passes on the mount, %d on something else; the process runs: %t", f.Fuse, f.Native, p.Running())
		}
		l.o.Heal()
		l.stop(t, p)
		must(t, os.RemoveAll(filepath.Join(l.n.Releases(), name)))
	})
}
