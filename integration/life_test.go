package integration

import (
	"bytes"
	"context"
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

// lifeLab is an origin with a published sample and one host.
type lifeLab struct {
	*lab.Lab
	o       *origin
	n       *node
	source  string
	release published
}

func newLifeLab(t *testing.T, big, size int) *lifeLab {
	t.Helper()
	lab.Require(t, lab.Root, lab.FUSE, lab.Tool("rsync"))
	l := &lifeLab{Lab: lab.New(t, "origin", "host")}
	l.o = newOrigin(t, l.Host("origin"))
	l.source = sampleTree(t, 80, big, size)
	l.release = l.o.publish(l.source, "app/life")
	l.n = l.o.newNode(l.Host("host"))
	return l
}

// paths are where the release goes on the host; the mountpoint is made.
func (l *lifeLab) paths(t *testing.T) (mountpoint, dest string) {
	t.Helper()
	mountpoint = filepath.Join(l.n.Mnt(), "life")
	must(t, os.MkdirAll(mountpoint, 0o755))
	return mountpoint, filepath.Join(l.n.Releases(), "life")
}

// onHost runs an ordinary program in the host with a deadline: a mount that
// hangs must fail the test and not hang it.
func (l *lifeLab) onHost(t *testing.T, within time.Duration, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	out, err := l.n.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v, %v\n%s", name, args, err, ctx.Err(), out)
	}
	return string(out)
}

// TestLifeMetadataFirst: the tree is there before any payload, a read waits for
// its bytes, and the status says who waits.
func TestLifeMetadataFirst(t *testing.T) {
	l := newLifeLab(t, 2, 1<<20)
	mountpoint, dest := l.paths(t)
	// All metadata is in the file; the network is not there at all.
	l.n.Cut()
	p := l.n.daemon("mount", "mount", l.release.file, mountpoint, "--dest", dest, "--linger", "10m",
		"--at-end", "unmount", "--read-timeout", "2m", "--wait", "2m", "--peer", l.o.Addr+":"+peerPort)
	l.n.reach(p, l.release.Version, "mounted", 30*time.Second)

	const form = `%P\t%y\t%m\t%U:%G\t%T@\t%l\n`
	list := func(dir string, expression ...string) string {
		out := l.onHost(t, 20*time.Second, "find", append([]string{dir + "/"}, expression...)...)
		lines := strings.Split(out, "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	if want, got := list(l.source, "-printf", form), list(mountpoint, "-printf", form); want != got {
		t.Errorf("the mount lists\n%s\nwant\n%s", got, want)
	}
	const sizes = `%P\t%s\t%n\n`
	if want, got := list(l.source, "-type", "f", "-printf", sizes), list(mountpoint, "-type", "f", "-printf", sizes); want != got {
		t.Errorf("the mount's sizes are\n%s\nwant\n%s", got, want)
	}
	if out := l.onHost(t, 20*time.Second, "ls", "-lR", mountpoint); !strings.Contains(out, "01.bin") {
		t.Errorf("ls -lR says\n%s", out)
	}
	if s := l.n.status(l.release.Version); s.BytesHave != 0 || s.Bytes == 0 {
		t.Errorf("%d of %d bytes are here without a network", s.BytesHave, s.Bytes)
	}

	// Somebody reads, and it is seen whom for.
	type outcome struct {
		text []byte
		err  error
	}
	read := make(chan outcome, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		out, err := l.n.Command(ctx, "cat", filepath.Join(mountpoint, "bin/tool")).Output()
		read <- outcome{out, err}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := lab.Poll(ctx, func() (bool, error) { return len(l.n.status(l.release.Version).Waiting) > 0, nil }); err != nil {
		t.Errorf("a read waits, but status does not show it: %+v", l.n.status(l.release.Version))
	}
	l.n.Heal()
	want, err := os.ReadFile(filepath.Join(l.source, "bin/tool"))
	must(t, err)
	if got := <-read; got.err != nil || !bytes.Equal(got.text, want) {
		t.Errorf("the read that waited got %d bytes, %v; want %d", len(got.text), got.err, len(want))
	}
	l.n.reach(p, l.release.Version, "lingering", time.Minute)
	equal(t, l.source, dest)
	l.stop(t, p)
}

// stop ends a process and looks for what it left.
func (l *lifeLab) stop(t *testing.T, p *lab.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
	if left := l.n.MountsBelow(l.n.Dir); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
}

// TestLifeReadFirst: what is read comes first, ahead of the background; at the
// end the path is native, with the same content, and the process is gone.
func TestLifeReadFirst(t *testing.T) {
	const files, size = 12, 3 << 20
	l := newLifeLab(t, files, size)
	mountpoint, dest := l.paths(t)
	l.n.Shape(lab.Shape{Down: "10mbit"})
	p := l.n.daemon("mount", "mount", l.release.Version, mountpoint, "--origin", l.o.url(), "--dest", dest,
		"--linger", "1s", "--at-end", "handover", "--cache", "64MiB")
	l.n.reach(p, l.release.Version, "mounted", 30*time.Second)
	// From the last to the first: no order of the background does it.
	for i := files - 1; i >= 0; i -= 2 {
		name := fmt.Sprintf("big/%02d.bin", i)
		out := l.onHost(t, time.Minute, "dd", "if="+filepath.Join(mountpoint, name), "bs=4k", "count=1", "skip=300", "status=none")
		want, err := os.ReadFile(filepath.Join(l.source, name))
		must(t, err)
		if out != string(want[300*4096:301*4096]) {
			t.Errorf("%s: wrong bytes", name)
		}
	}
	s := l.n.status(l.release.Version)
	t.Logf("six reads, last file first: %.0f %% had come", 100*float64(s.BytesHave)/float64(s.Bytes))
	if s.Bytes == 0 || 2*s.BytesHave >= s.Bytes {
		t.Errorf("%d of %d bytes had come before six reads were served: they did not come first", s.BytesHave, s.Bytes)
	}

	l.n.Shape(lab.Shape{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if code, err := p.Wait(ctx); code != 0 || err != nil {
		t.Fatalf("the process ends with %d, %v\n%s", code, err, p.Tail(40))
	}
	if kind := l.n.FSType(mountpoint); strings.HasPrefix(kind, "fuse") {
		t.Errorf("the path is still %s", kind)
	}
	equal(t, l.source, mountpoint)
	equal(t, l.source, dest)
	must(t, l.n.Unmount(mountpoint))
	noLeftovers(t, l.n.Releases(), "life")
}

// TestLifeDetach: the command returns when the copy stands, the process behind
// it seeds on for the linger, and ends by itself without a trace.
func TestLifeDetach(t *testing.T) {
	t.Parallel()
	l := newLifeLab(t, 2, 1<<20)
	mountpoint, dest := l.paths(t)
	l.n.ok("mount", l.release.Version, mountpoint, "--origin", l.o.url(), "--dest", dest, "--linger", "15s",
		"--at-end", "unmount", "--detach-after", "materialised", "--peer-listen", l.n.Addr+":7072")
	equal(t, l.source, dest)
	if s := l.n.status(l.release.Version); stateRank[s.State] < stateRank["materialised"] {
		t.Errorf("after --detach-after materialised the state is %q", s.State)
	}
	// It seeds: nobody else is there.
	l.o.proc.Kill()
	other := l.o.newNode(l.Add("other"))
	other.ok("fetch", l.release.file, filepath.Join(other.Releases(), "life"), "--peer", l.n.Addr+":7072", "--linger", "0s")
	equal(t, l.source, filepath.Join(other.Releases(), "life"))
	l.ends(t)
}

// ends waits until no process of the host has the release and checks what is
// left.
func (l *lifeLab) ends(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := lab.Poll(ctx, func() (bool, error) { return len(l.n.Processes()) == 0, nil })
	if err != nil {
		t.Errorf("the process does not end by itself: %+v", l.n.statuses())
	}
	if left := l.n.MountsBelow(l.n.Dir); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
	noLeftovers(t, l.n.Releases(), "life")
}

// TestLifeDetachMounted: the command returns while the payload is on its way.
func TestLifeDetachMounted(t *testing.T) {
	t.Parallel()
	l := newLifeLab(t, 4, 1<<20)
	mountpoint, dest := l.paths(t)
	l.n.Shape(lab.Shape{Down: "2mbit"})
	l.n.ok("mount", l.release.Version, mountpoint, "--origin", l.o.url(), "--dest", dest, "--linger", "1s",
		"--at-end", "unmount", "--detach-after", "mounted")
	if s := l.n.status(l.release.Version); s.State != "mounted" || s.BytesHave >= s.Bytes {
		t.Errorf("after --detach-after mounted: %+v", s)
	}
	if kind := l.n.FSType(mountpoint); !strings.HasPrefix(kind, "fuse") {
		t.Errorf("the mountpoint is %q", kind)
	}
	l.n.Shape(lab.Shape{})
	l.ends(t)
	equal(t, l.source, dest)
}

// TestLifeDetachFails: a failure in the background is the command's failure.
func TestLifeDetachFails(t *testing.T) {
	l := newLifeLab(t, 0, 0)
	mountpoint, dest := l.paths(t)
	for _, stage := range []string{"mounted", "materialised"} {
		l.n.fails(66, []string{"app/none"}, "mount", "app/none", mountpoint, "--origin", l.o.url(), "--detach-after", stage)
		l.n.fails(65, nil, "mount", l.release.Version, mountpoint, "--origin", l.o.url(), "--detach-after", stage,
			"--trusted", t.TempDir())
	}
	must(t, os.MkdirAll(filepath.Join(dest, "mine"), 0o755))
	l.n.fails(73, []string{dest}, "fetch", l.release.Version, dest, "--origin", l.o.url(), "--detach-after", "materialised")
	if got := l.n.Processes(); len(got) > 0 {
		t.Errorf("processes are left after failures: %v", got)
	}
	if left := l.n.MountsBelow(l.n.Dir); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
}

// TestLifeInterrupted: SIGTERM and SIGKILL on the way lose no mount, show no
// part of a copy, and the next start goes on from what had come.
func TestLifeInterrupted(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			l := newLifeLab(t, 10, 3<<20)
			mountpoint, dest := l.paths(t)
			args := []string{"mount", l.release.Version, mountpoint, "--origin", l.o.url(), "--dest", dest,
				"--linger", "10m", "--at-end", "unmount"}
			l.n.Shape(lab.Shape{Down: "24mbit"})
			p := l.n.daemon("first", args...)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var had status
			err := lab.Poll(ctx, func() (bool, error) {
				had = l.n.status(l.release.Version)
				if !p.Running() || had.State == "complete" {
					return false, errors.New("too late: " + had.State)
				}
				return had.Bytes > 0 && had.BytesHave > had.Bytes/2, nil
			})
			if err != nil {
				t.Fatalf("waiting for the first half: %v: %+v\n%s", err, had, p.Tail(40))
			}
			if sig == syscall.SIGTERM {
				l.stop(t, p)
			} else {
				p.Kill()
			}
			if _, err := os.Lstat(dest); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a part of the copy is there under its final name: %v", err)
			}

			before := l.n.Traffic().Received
			l.n.Shape(lab.Shape{})
			p = l.n.daemon("second", args...)
			l.n.reach(p, l.release.Version, "lingering", time.Minute)
			equal(t, l.source, dest)
			came := int64(l.n.Traffic().Received - before)
			t.Logf("had %d of %d bytes; %d came over the link after the restart", had.BytesHave, had.Bytes, came)
			// What was in RAM only may come again, the bulk may not.
			if came > had.Bytes*4/5 {
				t.Errorf("%d bytes came after the restart of %d, %d were here: it did not go on from them", came, had.Bytes, had.BytesHave)
			}
			l.stop(t, p)
		})
	}
}

// noLeftovers checks that only the named release is in the directory.
func noLeftovers(t *testing.T, dir, want string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if e.Name() != want {
			t.Errorf("%s is left in %s", e.Name(), dir)
		}
	}
}

// TestDemo runs the story that the README starts with.
func TestDemo(t *testing.T) {
	l := lab.New(t, "one")
	n := newNode(t, l.Host("one"))
	dir := filepath.Join(n.Dir, "demo")
	n.ok("demo", "--nodes", "2", "--size", "16MiB", "--dir", dir)
	if left := n.MountsBelow(n.Dir); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
}
