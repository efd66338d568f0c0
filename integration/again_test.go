package integration

import (
	"context"
	"testing"
	"time"
)

// TestMountAgain: the command of a deployment that has been made is a success
// when it is given again, and one that was killed after its handover leaves
// nothing that somebody would have to clean by hand.
func TestMountAgain(t *testing.T) {
	t.Parallel()
	l := newLifeLab(t, 2, 1<<20)
	mountpoint, dest := l.paths(t)
	t.Cleanup(func() { l.n.Unmount(mountpoint) }) // the copy stays there, that is what is tested
	args := func(linger, dest string, more ...string) []string {
		return append([]string{"mount", l.release.Version, mountpoint, "--origin", l.o.url(), "--dest", dest,
			"--linger", linger}, more...)
	}
	layers := func(want int, when string) {
		t.Helper()
		if got := l.n.MountsBelow(mountpoint); len(got) != want {
			t.Fatalf("%s: %d mounts at the path, want %d", when, len(got), want)
		}
	}
	l.n.ok(args("0s", dest)...)
	layers(1, "after the handover")

	for range 2 {
		l.n.ok(args("0s", dest, "--activate", l.n.Dir+"/current")...)
		layers(1, "the same command again")
	}
	equal(t, l.source, mountpoint)
	l.n.fails(77, []string{"--dest " + dest}, args("0s", dest+"-other")...)
	other := l.o.publish(sampleTree(t, 3, 0, 0), "app/other")
	l.n.fails(77, []string{"umount " + mountpoint, l.release.Version}, "mount", other.Version, mountpoint,
		"--origin", l.o.url(), "--linger", "0s")
	layers(1, "after what was refused")

	// Killed while it lingers: its mount is dead, below the copy.
	must(t, l.n.Unmount(mountpoint))
	p := l.n.daemon("killed", args("10m", dest)...)
	l.n.reach(p, l.release.Version, "lingering", time.Minute)
	layers(2, "while it lingers")
	p.Kill()
	layers(2, "after kill -9")
	equal(t, l.source, mountpoint) // the copy on top does not need the process
	p = l.n.daemon("again", args("10m", dest)...)
	l.n.reach(p, l.release.Version, "lingering", time.Minute)
	layers(1, "after the next start")
	equal(t, l.source, mountpoint)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if code, err := p.Stop(ctx); code != 0 || err != nil {
		t.Errorf("it ends with %d, %v", code, err)
	}
	layers(1, "after SIGTERM")

	// Who asks for the mount to go gets that.
	l.n.ok(args("0s", dest, "--at-end", "unmount")...)
	layers(0, "after --at-end unmount")
}
