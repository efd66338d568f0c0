package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// failures is a testing.TB that records what a lab reports, so that a test can
// check that leftovers are noticed.
type failures struct {
	testing.TB
	cleanups []func()
	errors   []string
}

func (f *failures) Cleanup(c func())          { f.cleanups = append(f.cleanups, c) }
func (f *failures) Errorf(s string, a ...any) { f.errors = append(f.errors, fmt.Sprintf(s, a...)) }
func (f *failures) Failed() bool              { return len(f.errors) > 0 }
func (f *failures) run() {
	for i := len(f.cleanups) - 1; i >= 0; i-- {
		f.cleanups[i]()
	}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestHostsTalk(t *testing.T) {
	l := New(t, "a", "b")
	a, b := l.Host("a"), l.Host("b")
	for _, addr := range []string{b.Addr, b.Addr6} {
		ln, err := b.Listen("tcp", net.JoinHostPort(addr, "80"))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			if c, err := ln.Accept(); err == nil {
				io.WriteString(c, c.RemoteAddr().String())
				c.Close()
			}
		}()
		c, err := a.Dial(deadline(t, 10*time.Second), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(c)
		c.Close()
		if !strings.Contains(string(got), a.Addr) && !strings.Contains(string(got), a.Addr6) {
			t.Errorf("peer of %s is %s, want host a", addr, got)
		}
	}
}

func TestShapeAndCount(t *testing.T) {
	l := New(t, "a", "b")
	a, b := l.Host("a"), l.Host("b")
	b.Shape(Shape{Down: "16mbit"})
	const size = 4 << 20
	transfer := func() time.Duration { return transfer(t, a, b, size) }
	// 32 Mbit less the burst at 16 Mbit/s is 1.9 s. Only the lower bound is a
	// matter of the shaping; an upper one would be a matter of the machine.
	if d := transfer(); d < 1500*time.Millisecond {
		t.Errorf("4 MiB at 16 Mbit/s took %v", d)
	}
	if got := b.Traffic().Received; got < size || got > size*5/4 {
		t.Errorf("b received %d bytes, want about %d", got, size)
	}
	if got := a.Traffic().Sent; got < size || got > size*5/4 {
		t.Errorf("a sent %d bytes, want about %d", got, size)
	}
	b.Shape(Shape{})
	transfer()
}

// transfer sends bytes from one host to another and returns how long it took.
func transfer(t *testing.T, from, to *Host, size int64) time.Duration {
	t.Helper()
	ln, err := to.Listen("tcp", to.Addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := from.Dial(deadline(t, 30*time.Second), "tcp", ln.Addr().String())
		if err == nil {
			c.Write(make([]byte, size))
			c.Close()
		}
	}()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	if n, err := io.Copy(io.Discard, c); n != size {
		t.Fatalf("%d bytes: %v", n, err)
	}
	return time.Since(start)
}

func TestRack(t *testing.T) {
	l := New(t, "a", "b", "c")
	a, b, c := l.Host("a"), l.Host("b"), l.Host("c")
	r := l.Rack("r")
	r.Put(b)
	r.Put(c)
	r.Shape(Shape{Up: "16mbit", Down: "16mbit"})
	const size = 4 << 20
	transfer(t, b, c, size)
	if got := r.Traffic(); got.Sent > size/10 || got.Received > size/10 {
		t.Errorf("what stays in the rack is counted: %+v", got)
	}
	if d := transfer(t, a, b, size); d < 1500*time.Millisecond {
		t.Errorf("4 MiB at 16 Mbit/s into the rack took %v", d)
	}
	if got := r.Traffic(); got.Received < size || got.Received > size*5/4 || got.Sent > size/4 {
		t.Errorf("%+v, want about %d received", got, size)
	}
}

func TestMountIsSharedByCommandsOfAHost(t *testing.T) {
	l := New(t, "a")
	a := l.Host("a")
	ctx := deadline(t, 20*time.Second)
	if out, err := a.Command(ctx, "mount", "-t", "tmpfs", "none", a.Mnt()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(a.Mnt(), "f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := a.Command(ctx, "ls", a.Mnt()).Output()
	if err != nil || string(out) != "f\n" {
		t.Errorf("a later command sees %q, %v", out, err)
	}
	if got := a.FSType(a.Mnt()); got != "tmpfs" {
		t.Errorf("FSType = %q", got)
	}
	if got := a.MountsBelow(a.Dir); len(got) != 1 || got[0] != a.Mnt() {
		t.Errorf("MountsBelow = %v", got)
	}
	if err := a.Unmount(a.Mnt()); err != nil {
		t.Error(err)
	}
}

func TestProcess(t *testing.T) {
	l := New(t, "a")
	a := l.Host("a")
	ctx := deadline(t, 20*time.Second)
	p := a.Start("p", func(c *exec.Cmd) { c.Env = append(os.Environ(), "WORD=ready") },
		"sh", "-c", `trap 'exit 3' TERM; echo $WORD; while :; do sleep 0.05; done`)
	if err := p.WaitLog(ctx, "ready"); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Stop(ctx); code != 3 || err != nil {
		t.Errorf("Stop = %d, %v", code, err)
	}
	q := a.Start("q", nil, "sleep", "1000")
	if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", q.PID())); len(comm) == 0 {
		t.Error("no such process")
	}
	q.Kill()
	if code, err := q.Wait(ctx); code != -1 || err != nil {
		t.Errorf("after Kill: %d, %v", code, err)
	}
	r := a.Start("r", nil, "sh", "-c", "echo oops >&2; exit 7")
	if err := r.WaitLog(ctx, "never said"); err == nil {
		t.Error("WaitLog of an ended process succeeded")
	}
	if code, _ := r.Wait(ctx); code != 7 || !strings.Contains(r.Tail(5), "oops") {
		t.Errorf("code %d, tail %q", code, r.Tail(5))
	}
}

func TestCutAndHeal(t *testing.T) {
	l := New(t, "a", "b")
	a, b := l.Host("a"), l.Host("b")
	ln, err := b.Listen("tcp", b.Addr+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	b.Cut()
	if c, err := a.Dial(deadline(t, 300*time.Millisecond), "tcp", ln.Addr().String()); err == nil {
		c.Close()
		t.Error("a host that is cut off answers")
	}
	b.Heal()
	c, err := a.Dial(deadline(t, 10*time.Second), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestLeftoversFailTheTest(t *testing.T) {
	Require(t, Root, Tool("ip"), Namespaces)
	f := &failures{TB: t}
	l := New(f, "a")
	a := l.Host("a")
	ctx := deadline(t, 20*time.Second)
	if out, err := a.Command(ctx, "mount", "-t", "tmpfs", "none", a.Mnt()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// A grandchild that outlives its parent, as a detached daemon does.
	// Between fork and exec it has another command line, or none.
	const grandchild = `setsid sleep 1000 >/dev/null 2>&1 </dev/null & until grep -q ^sleep /proc/$!/cmdline; do :; done`
	if err := a.Command(ctx, "sh", "-c", grandchild).Run(); err != nil {
		t.Fatal(err)
	}
	f.run()
	all := strings.Join(f.errors, "\n")
	for _, want := range []string{"sleep 1000", "mount " + a.Mnt() + " is left"} {
		if !strings.Contains(all, want) {
			t.Errorf("no complaint about %q in:\n%s", want, all)
		}
	}
	if got := mountsBelow(l.root); len(got) != 0 {
		t.Errorf("mounts are left: %v", got)
	}
	if _, err := os.Stat("/run/netns/" + a.namespace); err == nil {
		t.Error("namespace is left")
	}
}

func TestSweepOfDeadProcess(t *testing.T) {
	Require(t, Root, Tool("ip"), Namespaces)
	// A process that has ended and is reaped: its id is dead.
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	stale := fmt.Sprintf("%s%d-1-a", Prefix, dead.Process.Pid)
	own := fmt.Sprintf("%s%d-0-own", Prefix, os.Getpid())
	for _, ns := range []string{stale, own} {
		if err := ip("netns add " + ns); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	}
	point := filepath.Join(t.TempDir(), workDir(dead.Process.Pid), "m")
	if err := os.MkdirAll(point, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "none", point).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sweep(t)
	if _, err := os.Stat("/run/netns/" + stale); err == nil {
		t.Error("the namespace of a dead process is left")
	}
	if _, err := os.Stat("/run/netns/" + own); err != nil {
		t.Error("the namespace of a live process was removed")
	}
	if got := mountsBelow(point); len(got) != 0 {
		t.Errorf("mounts of a dead process are left: %v", got)
		exec.Command("umount", point).Run()
	}
}
