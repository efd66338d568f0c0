package integration

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/integration/lab"
)

// procIO is a figure of /proc/PID/io.
func procIO(t *testing.T, p *lab.Process, name string) int64 {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.PID()))
	must(t, err)
	for line := range strings.Lines(string(raw)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && k == name {
			n, err := strconv.ParseInt(v, 10, 64)
			must(t, err)
			return n
		}
	}
	t.Fatalf("there is no %s in %s", name, raw)
	return 0
}

// TestStoreWritesOnce: up to the finished copy, the process writes each byte of
// the payload once, and holes not at all.
func TestStoreWritesOnce(t *testing.T) {
	l := newLifeLab(t, 8, 3<<20)
	sparse := filepath.Join(l.source, "sparse")
	must(t, os.WriteFile(sparse, []byte("start"), 0o644))
	must(t, os.Truncate(sparse, 64<<20))
	release := l.o.publish(l.source, "app/sparse")
	dest := filepath.Join(l.n.Releases(), "sparse")
	p := l.n.daemon("fetch", "fetch", release.Version, dest, "--origin", l.o.url(), "--linger", "10m")
	l.n.reach(p, release.Version, "lingering", time.Minute)
	var payload int64 // but holes
	must(t, filepath.WalkDir(l.source, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && e.Name() != "sparse" && e.Name() != "tool.hard" {
			fi, err := e.Info()
			must(t, err)
			payload += fi.Size()
		}
		return err
	}))
	// wchar counts sockets, too: requests and the like are small.
	written := procIO(t, p, "wchar")
	t.Logf("%d bytes of payload, %d bytes written to files and sockets", payload, written)
	if written < payload || written > payload+payload/10+1<<20 {
		t.Errorf("%d bytes were written for a payload of %d", written, payload)
	}
	var there, here unix.Stat_t
	must(t, unix.Stat(sparse, &there))
	must(t, unix.Stat(filepath.Join(dest, "sparse"), &here))
	if here.Size != there.Size || here.Blocks > there.Blocks {
		t.Errorf("the sparse file takes %d blocks, %d at the source", here.Blocks, there.Blocks)
	}
	equal(t, l.source, dest)
	l.stop(t, p)
}

// TestLingerFromMemory: what fits into memory is served without the disk. The
// copy's files are emptied before a late peer, who knows nobody else, fetches.
func TestLingerFromMemory(t *testing.T) {
	l := newLifeLab(t, 8, 3<<20)
	_, dest := l.paths(t)
	p := l.n.daemon("fetch", "fetch", l.release.Version, dest, "--origin", l.o.url(), "--linger", "10m",
		"--cache", "128MiB", "--peer-listen", l.n.Addr+":7072")
	l.n.reach(p, l.release.Version, "lingering", time.Minute)
	l.o.proc.Kill()
	must(t, filepath.WalkDir(dest, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			err = os.Truncate(path, 0)
		}
		return err
	}))
	late := l.o.newNode(l.Add("late"))
	copied := filepath.Join(late.Releases(), "life")
	late.ok("fetch", l.release.file, copied, "--peer", l.n.Addr+":7072", "--linger", "0s")
	equal(t, l.source, copied)
	l.stop(t, p)
}
