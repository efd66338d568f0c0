package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// collected is the answer of `gc --json`.
type collected struct {
	Schema   int `json:"schema"`
	Releases []struct {
		Version, Path, Action string
		Reasons               []string
		Done                  bool
	} `json:"releases"`
	Leftovers []struct {
		Kind, Path, Action string
		Reasons            []string
		Done               bool
	} `json:"leftovers"`
}

// gc runs the command on the host's releases.
func (n *node) gc(args ...string) (c collected) {
	n.t.Helper()
	out := n.ok(append([]string{"gc", n.Releases(), "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &c); err != nil || c.Schema != 1 {
		n.t.Fatalf("gc --json: %v: %s", err, out)
	}
	return c
}

// release checks what became of a release, and that a reason says why.
func (c collected) release(t *testing.T, version, action, why string) {
	t.Helper()
	for _, r := range c.Releases {
		if r.Version != version {
			continue
		}
		if r.Action != action || !strings.Contains(strings.Join(r.Reasons, "; "), why) {
			t.Errorf("%s: %s, %q; want %s, %q", version, r.Action, r.Reasons, action, why)
		}
		return
	}
	t.Errorf("%s is not in the report: %+v", version, c.Releases)
}

// leftover checks what became of a leftover at path, "" for not being there.
func (c collected) leftover(t *testing.T, kind, path, action string) {
	t.Helper()
	got := ""
	for _, l := range c.Leftovers {
		if l.Kind == kind && l.Path == path {
			got = l.Action
		}
	}
	if got != action {
		t.Errorf("%s %s: %q, want %q; all: %+v", kind, path, got, action, c.Leftovers)
	}
}

// TestGCUses: what is mounted, served, open, running in or mapped stays, also
// when no path tells; when that ends it goes.
func TestGCUses(t *testing.T) {
	l := newLifeLab(t, 1, 1<<20)
	n := l.n
	dest := func(name string) string { return filepath.Join(n.Releases(), name) }
	fetch := func(name string) {
		t.Helper()
		l.o.publish(sampleTree(t, 3+len(name), 0, 0), "app/"+name)
		n.ok("fetch", "app/"+name, dest(name), "--origin", l.o.url(), "--linger", "0s")
	}
	fetch("running")
	fetch("opened-long-ago")
	fetch("mounted-elsewhere")
	fetch("idle-release-of-old")
	mountpoint, served := l.paths(t)
	t.Cleanup(func() { n.Unmount(mountpoint) })
	p := n.daemon("mount", "mount", l.release.Version, mountpoint, "--origin", l.o.url(), "--dest", served, "--linger", "10m")
	n.reach(p, l.release.Version, "lingering", time.Minute)

	// A program of the release runs; nothing else holds it.
	tool := filepath.Join(dest("running"), "sleep")
	b, err := os.ReadFile("/bin/sleep")
	must(t, err)
	must(t, os.WriteFile(tool, b, 0o755))
	runs := n.Start("sleep", nil, tool, "600")
	// A file is open through a mount that has been detached since: no path that
	// anybody could see leads from the process to the release.
	aside := filepath.Join(n.Dir, "aside")
	must(t, os.Mkdir(aside, 0o755))
	must(t, syscall.Mount(dest("opened-long-ago"), aside, "", syscall.MS_BIND, ""))
	opened := n.Start("open", nil, "sh", "-c", fmt.Sprintf("exec sleep 600 <%s/secret", aside))
	must(t, lab.Poll(t.Context(), func() (bool, error) {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", opened.PID()))
		return strings.HasSuffix(to, "sleep") || strings.HasSuffix(to, "coreutils"), nil
	}))
	must(t, syscall.Unmount(aside, syscall.MNT_DETACH))
	// A mount in another namespace.
	elsewhere := n.Start("namespace", nil, "unshare", "--mount", "sh", "-c",
		fmt.Sprintf("mount --bind %s %s && echo mounted && exec sleep 600", dest("mounted-elsewhere"), aside))
	must(t, elsewhere.WaitLog(t.Context(), "mounted"))

	for _, args := range [][]string{{"--keep", "0", "--dry-run"}, {"--keep", "0"}} {
		c := n.gc(args...)
		c.release(t, "app/running", "keep", "(sleep) uses")
		c.release(t, "app/opened-long-ago", "keep", "/secret")
		c.release(t, "app/mounted-elsewhere", "keep", "it is mounted at "+aside)
		c.release(t, l.release.Version, "keep", "it is mounted at "+mountpoint)
		c.release(t, l.release.Version, "keep", fmt.Sprintf("the dcfs process %d serves it", p.PID()))
		c.release(t, "app/idle-release-of-old", "remove", "nobody uses it")
		_, err := os.Stat(dest("idle-release-of-old"))
		if gone := errors.Is(err, os.ErrNotExist); gone == slices.Contains(args, "--dry-run") {
			t.Errorf("gc %v: the release is gone: %t", args, gone)
		}
	}
	equal(t, l.source, served)
	equal(t, l.source, mountpoint)

	// All of that ends; the bind mount of the handover stays and counts.
	for _, p := range []*lab.Process{runs, opened, elsewhere} {
		p.Kill()
	}
	l.stopKeeping(t, p)
	c := n.gc("--keep", "0")
	c.release(t, "app/running", "remove", "")
	c.release(t, "app/opened-long-ago", "remove", "")
	c.release(t, "app/mounted-elsewhere", "remove", "")
	c.release(t, l.release.Version, "keep", "umount "+mountpoint)
	must(t, n.Unmount(mountpoint))
	n.gc("--keep", "0").release(t, l.release.Version, "remove", "")
	if left, err := os.ReadDir(n.Releases()); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// stopKeeping ends a process that leaves the copy at its mountpoint.
func (l *lifeLab) stopKeeping(t *testing.T, p *lab.Process) {
	t.Helper()
	must(t, p.Signal(syscall.SIGTERM))
	select {
	case <-p.Done():
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not end", p.Label)
	}
}

// TestGCLeftovers: what killed processes left is found, told, and cleaned;
// nothing of a live one is.
func TestGCLeftovers(t *testing.T) {
	l := newLifeLab(t, 4, 2<<20)
	n := l.n
	mountpoint, dest := l.paths(t)
	t.Cleanup(func() { n.Unmount(mountpoint) })
	stage := func(dest string) string {
		return filepath.Join(filepath.Dir(dest), "."+filepath.Base(dest)+".dcfs")
	}
	// One is killed on its way, one after its handover, one is alive.
	n.Shape(lab.Shape{Down: "4mbit"})
	killed := n.daemon("killed", "mount", l.release.Version, mountpoint, "--origin", l.o.url(), "--dest", dest)
	n.reach(killed, l.release.Version, "mounted", time.Minute)
	killed.Kill()
	done := l.o.publish(sampleTree(t, 5, 0, 0), "app/done")
	covered := filepath.Join(n.Mnt(), "done")
	must(t, os.Mkdir(covered, 0o755))
	t.Cleanup(func() { n.Unmount(covered) })
	handed := n.daemon("handed", "mount", done.Version, covered, "--origin", l.o.url(), "--linger", "10m",
		"--dest", filepath.Join(n.Releases(), "done"))
	n.reach(handed, done.Version, "lingering", time.Minute)
	handed.Kill()
	half := filepath.Join(n.Releases(), ".dcfs-removed-0123456789abcdef")
	must(t, os.MkdirAll(filepath.Join(half, "sub"), 0o755))
	live := filepath.Join(n.Releases(), "live")
	alive := n.daemon("alive", "fetch", l.release.Version, live, "--origin", l.o.url())
	must(t, lab.Poll(t.Context(), func() (bool, error) { _, err := os.Stat(stage(live)); return err == nil, nil }))

	socket := func(p *lab.Process) string { return filepath.Join(n.Run(), fmt.Sprintf("%d.sock", p.PID())) }
	check := func(c collected, stageAction string) {
		t.Helper()
		c.leftover(t, "mount", mountpoint, "remove")
		c.leftover(t, "socket", socket(killed), "") // a status has found it before
		c.leftover(t, "socket", socket(handed), "remove")
		c.leftover(t, "socket", socket(alive), "")
		c.leftover(t, "removed", half, "remove")
		c.leftover(t, "stage", stage(dest), stageAction)
		c.leftover(t, "stage", stage(live), "keep")
		c.release(t, done.Version, "keep", "it is mounted at "+covered)
	}
	check(n.gc("--keep", "1", "--dry-run"), "keep")
	if got := len(n.MountsBelow(n.Mnt())); got != 3 {
		t.Errorf("after a dry run there are %d mounts, want 3", got)
	}
	check(n.gc("--keep", "1", "--dry-run", "--stale-after", "0s"), "remove")
	c := n.gc("--keep", "1")
	check(c, "keep")
	c.leftover(t, "mount", covered, "remove")
	if got := n.MountsBelow(n.Mnt()); len(got) != 1 || got[0] != covered {
		t.Errorf("mounts: %v, want the copy alone", got)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", half, err)
	}
	n.gc("--keep", "1", "--stale-after", "0s").leftover(t, "stage", stage(dest), "remove")
	if _, err := os.Stat(stage(dest)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", stage(dest), err)
	}
	if again := n.gc("--keep", "1", "--stale-after", "0s"); len(again.Leftovers) != 1 {
		t.Errorf("after all was cleaned: %+v", again.Leftovers)
	}
	// The live one was not disturbed.
	n.Shape(lab.Shape{})
	n.reach(alive, l.release.Version, "materialised", time.Minute)
	equal(t, l.source, live)
	must(t, n.Unmount(covered))
}
