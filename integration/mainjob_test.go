package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dcfs/integration/compare"
	"dcfs/integration/lab"
)

// TestMainJob is the whole story on a real tree: the Go toolchain is published,
// four hosts mount it, one of them compiles from the mount while most of it has
// not come, all end up with an equal copy and a swapped link, the origin dies
// on the way, and a fifth host is served by its peers.
func TestMainJob(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE, lab.Tool("rsync"))
	source := goTree(t)
	l := lab.New(t, "origin", "a", "b", "c", "d")
	o := newOrigin(t, l.Host("origin"))
	old := o.publish(smallGoTree(t), "go/old")
	release := o.publish(source, "go/new")
	t.Logf("published %d files, %d MB, %d pieces of %d KiB",
		release.Files, release.Bytes/1e6, release.Pieces, release.PieceLength/1024)

	var hosts []*goHost
	for _, name := range []string{"a", "b", "c", "d"} {
		h := &goHost{node: o.newNode(l.Host(name))}
		hosts = append(hosts, h)
		h.startOld(o, old)
		// Slow enough that the build is done long before the rest has come, on
		// any machine: the need is about a quarter of the bytes.
		h.Shape(lab.Shape{Down: slowLink})
	}
	for _, h := range hosts {
		h.mount(o, release)
	}
	for _, h := range hosts {
		h.reach(h.proc, release.Version, "mounted", 30*time.Second)
	}
	buildFromMount(t, hosts[0], release)

	for _, h := range hosts {
		h.watch()
	}
	// One host gets ahead, so that it is whole while the others are not.
	hosts[0].Shape(lab.Shape{})
	hosts[0].reach(hosts[0].proc, release.Version, "materialised", 90*time.Second)
	o.proc.Kill()
	for _, h := range hosts[1:] {
		if s := h.status(release.Version); s.BytesHave >= s.Bytes {
			t.Errorf("%s was whole before the origin died: the test shows nothing", h.Name)
		}
		h.Shape(lab.Shape{})
	}
	for _, h := range hosts {
		h.reach(h.proc, release.Version, "lingering", 120*time.Second)
		h.unwatch()
		equal(t, source, h.dest("new"))
	}
	fifth := o.newNode(l.Add("e"))
	lateJoiner(t, fifth, hosts[0].node, release, source)
	verifyFindsFlippedByte(t, fifth, release)
	for _, h := range hosts {
		h.end()
	}
}

const slowLink = "16mbit"

// goTree is the tree of the Go toolchain that runs the test.
func goTree(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	dir, err := filepath.EvalSymlinks(strings.TrimSpace(string(out)))
	must(t, err)
	return dir
}

// smallGoTree is the release that stands before: it has a VERSION file, too.
func smallGoTree(t *testing.T) string {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "VERSION"), []byte("old\n"), 0o644))
	return dir
}

// goHost is a host in the main job.
type goHost struct {
	*node
	proc    *lab.Process
	watcher *linkWatcher
}

func (h *goHost) dest(name string) string { return filepath.Join(h.Releases(), name) }
func (h *goHost) current() string         { return filepath.Join(h.Dir, "current") }
func (h *goHost) mountpoint() string      { return filepath.Join(h.Mnt(), "go") }

// startOld puts the small release there and lets the link point to it.
func (h *goHost) startOld(o *origin, old published) {
	h.t.Helper()
	h.ok("fetch", old.Version, h.dest("old"), "--origin", o.url(), "--linger", "0s")
	h.ok("activate", h.current(), h.dest("old"))
}

func (h *goHost) mount(o *origin, release published) {
	h.t.Helper()
	must(h.t, os.Mkdir(h.mountpoint(), 0o755))
	h.proc = h.daemon("mount", "mount", release.Version, h.mountpoint(), "--origin", o.url(),
		"--dest", h.dest("new"), "--activate", h.current(), "--linger", "10m", "--at-end", "unmount",
		"--peer-listen", h.Addr+":7072")
}

// end stops a lingering process, which must take its mount along.
func (h *goHost) end() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	if _, err := h.proc.Stop(ctx); err != nil {
		h.t.Errorf("%s: %v", h.Name, err)
	}
	if left := h.MountsBelow(h.Dir); len(left) > 0 {
		h.t.Errorf("%s: mounts are left after --at-end unmount: %v", h.Name, left)
	}
}

// buildFromMount compiles and runs a small program with the toolchain in the
// mount, while less than half of it has come.
func buildFromMount(t *testing.T, h *goHost, release published) {
	t.Helper()
	work := filepath.Join(h.Dir, "hello")
	must(t, os.Mkdir(work, 0o755))
	must(t, os.WriteFile(filepath.Join(work, "go.mod"), []byte("module hello\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(work, "main.go"), []byte(helloProgram), 0o644))
	goCommand := func(args ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := h.Command(ctx, filepath.Join(h.mountpoint(), "bin/go"), args...)
		cmd.Dir = work
		// Nothing but the mount and the standard tools: a toolchain elsewhere
		// on the machine cannot help out.
		cmd.Env = []string{
			"PATH=" + filepath.Join(h.mountpoint(), "bin") + ":/usr/bin:/bin", "HOME=" + h.Dir,
			"GOROOT=" + h.mountpoint(), "GOCACHE=" + filepath.Join(h.Dir, "gocache"), "GOPATH=" + filepath.Join(h.Dir, "gopath"),
			"GOFLAGS=", "GOTOOLCHAIN=local", "GOPROXY=off", "GOTELEMETRY=off", "CGO_ENABLED=0",
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %v from the mount: %v\n%s\n%+v\n%s", args, err, out, h.status(release.Version), h.proc.Tail(40))
		}
		return string(out)
	}

	before := h.status(release.Version)
	start := time.Now()
	goCommand("build", "-o", "hello", ".")
	took := time.Since(start)
	after := h.status(release.Version)
	t.Logf("go build from the mount: %.1f s; %d MB of %d MB were here before, %d MB (%.0f %%) after",
		took.Seconds(), before.BytesHave/1e6, after.Bytes/1e6, after.BytesHave/1e6, 100*float64(after.BytesHave)/float64(after.Bytes))
	if after.Bytes < release.Bytes/2 || after.BytesHave == 0 {
		t.Errorf("status makes no sense: %+v", after)
	}
	if 2*after.BytesHave >= after.Bytes {
		t.Errorf("%d of %d bytes had come when the build ended, want less than half", after.BytesHave, after.Bytes)
	}
	out, err := h.Command(t.Context(), filepath.Join(work, "hello")).Output()
	if err != nil || string(out) != "BUILT FROM THE MOUNT\n" {
		t.Errorf("the program says %q, %v", out, err)
	}
	var env map[string]string
	must(t, json.Unmarshal([]byte(goCommand("env", "-json", "GOROOT", "GOTOOLDIR")), &env))
	for k, v := range env {
		if !strings.HasPrefix(v, h.mountpoint()) {
			t.Errorf("%s is %s, not in the mount", k, v)
		}
	}
}

// helloProgram needs little of the library: what it shows is the toolchain.
const helloProgram = `package main

import "os"

func main() { os.Stdout.WriteString("BUILT FROM THE MOUNT\n") }
`

// linkWatcher reads a file through a link without a pause.
type linkWatcher struct {
	stop     chan struct{}
	once     sync.Once // closes stop
	done     sync.WaitGroup
	swapped  chan struct{} // closed when the new release was seen
	old, new int
	errs     []string
}

// watch starts to read current/VERSION. At every instant it must be that of the
// old release or that of the new one, and never the old one again.
func (h *goHost) watch() {
	w := &linkWatcher{stop: make(chan struct{}), swapped: make(chan struct{})}
	h.watcher = w
	path := filepath.Join(h.current(), "VERSION")
	w.done.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			default:
				w.look(path)
			}
		}
	})
	h.t.Cleanup(w.end)
}

func (w *linkWatcher) look(path string) {
	text, err := os.ReadFile(path)
	switch {
	case len(w.errs) > 10:
		time.Sleep(time.Millisecond)
	case err != nil:
		w.errs = append(w.errs, err.Error())
	case string(text) == "old\n" && w.new == 0:
		w.old++
	case strings.HasPrefix(string(text), "go"):
		if w.new++; w.new == 1 {
			close(w.swapped)
		}
	default:
		w.errs = append(w.errs, fmt.Sprintf("read %q after %d old and %d new", text, w.old, w.new))
	}
	time.Sleep(100 * time.Microsecond) // leaves the machine to others
}

func (w *linkWatcher) end() {
	w.once.Do(func() { close(w.stop) })
	w.done.Wait()
}

// unwatch waits until the new release was seen, ends watch and reports.
func (h *goHost) unwatch() {
	h.t.Helper()
	w := h.watcher
	select {
	case <-w.swapped:
	case <-time.After(10 * time.Second):
		h.t.Errorf("%s: the link was not swapped", h.Name)
	}
	w.end()
	h.t.Logf("%s: link read %d times before the swap, %d after", h.Name, w.old, w.new)
	if len(w.errs) > 0 || w.old == 0 {
		h.t.Errorf("%s: link: %d old reads, errors %q", h.Name, w.old, w.errs)
	}
	if target, _ := os.Readlink(h.current()); target != h.dest("new") {
		h.t.Errorf("%s: link points to %s", h.Name, target)
	}
}

// lateJoiner fetches with the origin dead: all it knows is the release's file
// and one peer.
func lateJoiner(t *testing.T, late, peer *node, release published, source string) {
	t.Helper()
	start := time.Now()
	dest := filepath.Join(late.Releases(), "new")
	late.ok("fetch", release.file, dest, "--peer", peer.Addr+":7072", "--linger", "0s")
	t.Logf("late joiner was whole after %.1f s", time.Since(start).Seconds())
	equal(t, source, dest)
}

func verifyFindsFlippedByte(t *testing.T, n *node, release published) {
	t.Helper()
	dest := filepath.Join(n.Releases(), "new")
	n.ok("verify", release.file, dest)
	name := "src/fmt/print.go"
	must(t, flip(filepath.Join(dest, name)))
	if r := n.fails(65, nil, "verify", release.file, dest); !strings.Contains(r.stdout, name) {
		t.Errorf("verify does not name %s on stdout\n%v", name, r)
	}
}

// flip changes one byte in the middle of a file and keeps its size, mode and
// times.
func flip(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(path, text, info.Mode()); err != nil {
		return err
	}
	return os.Chtimes(path, info.ModTime(), info.ModTime())
}

// equal compares a copy with its source by tools that are not dcfs.
func equal(t testing.TB, source, got string) {
	t.Helper()
	diff, err := compare.Same(t.Context(), source, got)
	must(t, err)
	if len(diff) > 0 {
		t.Errorf("%s differs from %s:\n%s", got, source, strings.Join(diff, "\n"))
	}
}
