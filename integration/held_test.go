package integration

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// TestHeld: with a parent that keeps the mount, a process is for the outside what
// it would be without: signals ask it for an orderly end, also when they come to
// parent and child, the exit code says which, and after kill -9 the same command
// works at once, with the same ports.
func TestHeld(t *testing.T) {
	l := newLifeLab(t, 4, 2<<20)
	mountpoint, dest := l.paths(t)
	l.n.Shape(lab.Shape{Down: "8mbit"})
	args := []string{"mount", l.release.Version, mountpoint, "--dest", dest, "--origin", l.o.url(),
		"--peer-listen", net.JoinHostPort(l.n.Addr, "7072"), "--http", net.JoinHostPort(l.n.Addr, "7080")}
	start := func(name string, more ...string) *lab.Process {
		p := l.n.daemon(name, append(args, more...)...)
		s := l.n.reach(p, l.release.Version, "mounted", 20*time.Second)
		if s.PID != p.PID() {
			t.Errorf("the status names process %d, want %d", s.PID, p.PID())
		}
		return p
	}
	ends := func(p *lab.Process, code int) {
		t.Helper()
		l.exits(t, p, code)
		if left := l.n.MountsBelow(l.n.Dir); len(left) > 0 {
			t.Errorf("mounts are left: %v", left)
		}
	}

	p := start("group")
	for _, pid := range append(children(p.PID()), p.PID()) { // as killall does
		must(t, syscall.Kill(pid, syscall.SIGTERM))
	}
	ends(p, 128+15)

	p = start("interrupted")
	must(t, p.Signal(syscall.SIGINT))
	ends(p, 128+2)

	p = start("alone", "--survive=false")
	if kids := children(p.PID()); len(kids) > 0 {
		t.Errorf("without --survive it has children: %v", kids)
	}
	must(t, p.Signal(syscall.SIGTERM))
	ends(p, 128+15)

	for i := range 5 {
		start(fmt.Sprint("killed", i)).Kill()
	}
	p = start("last")
	l.n.Shape(lab.Shape{})
	l.n.reach(p, l.release.Version, "lingering", time.Minute)
	must(t, p.Signal(syscall.SIGTERM))
	l.exits(t, p, 0)
	must(t, l.n.Unmount(mountpoint)) // the copy, which the handover leaves
}

// exits waits for a process to end by itself.
func (l *lifeLab) exits(t *testing.T, p *lab.Process, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if got, err := p.Wait(ctx); err != nil || got != code {
		t.Errorf("the process ends with %d, %v; want %d\n%s", got, err, code, p.Tail(40))
	}
}
