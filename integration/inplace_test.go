package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/integration/lab"
)

// inPlace is the command line of a mount whose copy comes to stand at the
// mountpoint itself.
func (l *lifeLab) inPlace(mountpoint string, more ...string) []string {
	return append([]string{"mount", l.release.Version, mountpoint, "--dest", mountpoint, "--origin", l.o.url()}, more...)
}

// halfWay waits until more than half of the release has come.
func (l *lifeLab) halfWay(t *testing.T, p *lab.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := lab.Poll(ctx, func() (bool, error) {
		s := l.n.status(l.release.Version)
		if !p.Running() || s.State == "complete" {
			return false, errors.New("too late: " + s.State)
		}
		return s.Bytes > 0 && s.BytesHave > s.Bytes/2, nil
	})
	if err != nil {
		t.Fatalf("waiting for the first half: %v\n%s", err, p.Tail(40))
	}
}

// empty makes sure that the path, without any mount, shows nothing.
func empty(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	must(t, err)
	if len(entries) > 0 {
		t.Errorf("%s shows a part: %v", path, entries)
	}
}

// TestInPlace: --dest is MOUNTPOINT. Killed in the middle, the path without its
// mount shows nothing; the next start resumes; a reader that looks all the time
// never misses a file or reads another byte while the mount turns into the
// copy; after umount the copy stands in the directory itself.
func TestInPlace(t *testing.T) {
	t.Parallel()
	l := newLifeLab(t, 10, 3<<20)
	mountpoint, _ := l.paths(t)
	l.n.Shape(lab.Shape{Down: "24mbit"})
	p := l.n.daemon("first", l.inPlace(mountpoint, "--linger", "10m")...)
	l.halfWay(t, p)
	p.Kill()
	must(t, unix.Unmount(mountpoint, unix.MNT_DETACH)) // as after a reboot
	empty(t, mountpoint)

	p = l.n.daemon("second", l.inPlace(mountpoint, "--linger", "1s")...)
	l.n.reach(p, l.release.Version, "mounted", 30*time.Second)
	stop := l.watch(t, mountpoint, "big/00.bin")
	l.n.Shape(lab.Shape{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if code, err := p.Wait(ctx); code != 0 || err != nil {
		t.Fatalf("the process ends with %d, %v\n%s", code, err, p.Tail(40))
	}
	stop()
	if kind := l.n.FSType(mountpoint); strings.HasPrefix(kind, "fuse") {
		t.Errorf("the path is still %s", kind)
	}
	equal(t, l.source, mountpoint)
	if err := os.WriteFile(filepath.Join(mountpoint, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing below the path: %v", err)
	}
	must(t, l.n.Unmount(mountpoint))
	if left := l.n.MountsBelow(l.n.Dir); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
	equal(t, l.source, mountpoint)
	noLeftovers(t, l.n.Mnt(), "life")

	// Once more: it is whole, and nothing is mounted or moved.
	l.n.ok(l.inPlace(mountpoint, "--linger", "0s")...)
	equal(t, l.source, mountpoint)
	noLeftovers(t, l.n.Mnt(), "life")
}

// watch reads a file of the release by its path, over and over, until the
// function that it returns is called.
func (l *lifeLab) watch(t *testing.T, mountpoint, name string) (stop func()) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(l.source, name))
	must(t, err)
	done, reads := make(chan struct{}), 0
	var reader sync.WaitGroup
	reader.Go(func() {
		for ; ; reads++ {
			select {
			case <-done:
				return
			default:
			}
			if got, err := readStart(filepath.Join(mountpoint, name), 4096); err != nil || !bytes.Equal(got, want[:4096]) {
				t.Errorf("read %d: %v", reads, err)
				return
			}
			time.Sleep(time.Millisecond) // leave the others a processor
		}
	})
	return func() {
		close(done)
		reader.Wait()
		t.Logf("%d reads by path, none failed", reads)
	}
}

func readStart(path string, n int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := make([]byte, n)
	_, err = f.ReadAt(p, 0)
	return p, err
}

// TestInPlaceKilledAfter: killed after the copy came to stand, the path shows
// the whole of it, and the next start takes away what was left beside it.
func TestInPlaceKilledAfter(t *testing.T) {
	l := newLifeLab(t, 2, 1<<20)
	mountpoint, _ := l.paths(t)
	p := l.n.daemon("first", l.inPlace(mountpoint, "--linger", "10m", "--at-end", "unmount")...)
	l.n.reach(p, l.release.Version, "lingering", time.Minute)
	p.Kill()
	equal(t, l.source, mountpoint)
	if left := l.n.MountsBelow(l.n.Dir); len(left) != 1 || !strings.Contains(fmt.Sprint(left), ".life.dcfs/tree") {
		t.Errorf("mounts: %v, want the dead one beside the path", left)
	}
	l.n.ok(l.inPlace(mountpoint, "--linger", "0s")...)
	equal(t, l.source, mountpoint)
	noLeftovers(t, l.n.Mnt(), "life")
	if left := l.n.MountsBelow(l.n.Dir); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
	// Another release does not take its place.
	other := l.o.publish(sampleTree(t, 3, 0, 0), "app/other")
	l.n.fails(73, []string{mountpoint}, "mount", other.Version, mountpoint, "--dest", mountpoint, "--origin", l.o.url())
	equal(t, l.source, mountpoint)
}

// TestInPlaceStopped: told to end before the copy stands, nothing is left to be
// seen at the path; told to end after it, the copy.
func TestInPlaceStopped(t *testing.T) {
	t.Parallel()
	l := newLifeLab(t, 10, 3<<20)
	mountpoint, _ := l.paths(t)
	l.n.Shape(lab.Shape{Down: "24mbit"})
	p := l.n.daemon("first", l.inPlace(mountpoint, "--linger", "10m")...)
	l.halfWay(t, p)
	l.stop(t, p)
	empty(t, mountpoint)
	l.n.Shape(lab.Shape{})
	p = l.n.daemon("second", l.inPlace(mountpoint, "--linger", "10m", "--at-end", "keep")...)
	l.n.reach(p, l.release.Version, "lingering", time.Minute)
	l.stop(t, p)
	equal(t, l.source, mountpoint)
	noLeftovers(t, l.n.Mnt(), "life")
	if left := l.n.MountsBelow(l.n.Dir); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
}
