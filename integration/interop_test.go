package integration

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/compare"
	"dcfs/integration/lab"
)

// TestInterop exchanges a payload with two clients of other makes, both ways.
func TestInterop(t *testing.T) {
	lab.Require(t, lab.Root, lab.Tool("rsync"))
	for _, client := range []foreignClient{aria2, libtorrent} {
		t.Run(client.name, func(t *testing.T) {
			lab.Require(t, client.need)
			interop(t, client)
		})
	}
}

func interop(t *testing.T, client foreignClient) {
	l := lab.New(t, "origin", "node", "foreign", "last")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 60, 3, 5<<20)
	release := o.publish(source, "interop/1")
	n, foreign := o.newNode(l.Host("node")), l.Host("foreign")

	// From the origin's seeder alone, found through its tracker.
	peersOnly := withoutWebSeeds(t, release.file)
	first := filepath.Join(foreign.Dir, "from-origin")
	p := client.start(t, foreign, "from-origin", peersOnly, first)
	p.finished(t)
	p.stop(t)
	foreignCopy(t, source, first)

	// From a lingering node alone.
	dest := filepath.Join(n.Releases(), "interop")
	np := n.daemon("fetch", "fetch", release.Version, dest, "--origin", o.url(),
		"--linger", "10m", "--peer-listen", n.Addr+":7072")
	n.reach(np, release.Version, "lingering", time.Minute)
	equal(t, source, dest)
	o.proc.Kill()
	second := filepath.Join(foreign.Dir, "from-node")
	p = client.start(t, foreign, "from-node", peersOnly, second, n.Addr+":7072")
	p.finished(t)
	p.stop(t)
	foreignCopy(t, source, second)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := np.Stop(ctx); err != nil {
		t.Error(err)
	}

	// The other way: the foreign client is the only seed there is.
	p = client.start(t, foreign, "seed", peersOnly, first)
	p.finished(t)
	last := o.newNode(l.Host("last"))
	got := filepath.Join(last.Releases(), "interop")
	last.ok("fetch", release.file, got, "--peer", foreign.Addr+":"+foreignPort, "--linger", "0s")
	equal(t, source, got)
}

// withoutWebSeeds writes a copy of a torrent that names no web seed (BEP 19), so
// that only peers can have served a client. The key stands at the end of the
// outer dictionary, which is sorted.
func withoutWebSeeds(t *testing.T, torrent string) string {
	t.Helper()
	text, err := os.ReadFile(torrent)
	must(t, err)
	if i := bytes.LastIndex(text, []byte("8:url-list")); i >= 0 {
		text = append(text[:i], 'e')
	}
	out := filepath.Join(t.TempDir(), "peers-only.torrent")
	must(t, os.WriteFile(out, text, 0o644))
	return out
}

// foreignCopy checks what a client that knows only files made of the release.
func foreignCopy(t *testing.T, source, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if e.IsDir() {
			dir = filepath.Join(dir, e.Name())
			break
		}
	}
	// A hard link's content is in the payload once, under its first name.
	diff, err := compare.Content(t.Context(), source, dir, "/.pad", "/lib/tool.hard")
	must(t, err)
	if len(diff) > 0 {
		t.Errorf("%s differs from %s:\n%s", dir, source, strings.Join(diff, "\n"))
	}
}
