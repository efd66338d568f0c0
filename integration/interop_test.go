package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"dcfs/integration/compare"
	"dcfs/integration/lab"
)

// TestInterop has dcfs and what others made get on. Transmission decides every
// ten seconds whom it asks and whom it answers, so that is waited for beside the
// rest.
func TestInterop(t *testing.T) {
	lab.Require(t, lab.Root, lab.Tool("rsync"))
	for _, client := range []foreignClient{transmission, aria2, libtorrent} {
		t.Run(client.name, func(t *testing.T) {
			lab.Require(t, client.need)
			t.Parallel()
			interop(t, client)
		})
	}
	t.Run("opentracker", opentracker)
	t.Run("nginx", nginxWebSeed)
}

// interop exchanges a payload with a client of another make, both ways.
func interop(t *testing.T, client foreignClient) {
	l := lab.New(t, "origin", "node", "foreign", "other", "last")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 60, 4, 8<<20) // more than all queues hold
	release := o.publish(source, "interop/1")
	n, foreign, other := o.newNode(l.Host("node")), l.Host("foreign"), l.Host("other")
	dest := filepath.Join(n.Releases(), "interop")
	np := n.daemon("fetch", "fetch", release.Version, dest, "--origin", o.url(),
		"--linger", "10m", "--peer-listen", n.Addr+":7072")
	n.reach(np, release.Version, "lingering", time.Minute)
	equal(t, source, dest)

	// From the origin's seeder, found through its tracker, and from a lingering
	// node alone.
	peersOnly := withoutWebSeeds(t, release.file)
	first, second := filepath.Join(foreign.Dir, "from-origin"), filepath.Join(other.Dir, "from-node")
	fromOrigin := client.start(t, foreign, "from-origin", peersOnly, first)
	fromNode := client.start(t, other, "from-node", peersOnly, second, n.Addr+":7072")
	fromOrigin.finished(t)
	fromOrigin.stop(t)
	foreignCopy(t, source, first, client.omits...)
	fromNode.finished(t)
	fromNode.stop(t)
	foreignCopy(t, source, second, client.omits...)
	o.proc.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := np.Stop(ctx); err != nil {
		t.Error(err)
	}

	// The other way: the foreign client is the only seed there is.
	client.start(t, foreign, "seed", peersOnly, first).finished(t)
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

// announceKey is the tracker of a release that one origin published.
var announceKey = regexp.MustCompile(`^d8:announce[0-9]+:http://[^/]*/announce`)

// withAnnounce writes a copy of a torrent that names one tracker, this one. All
// else stays as it is, the info-hash and the signature, too.
func withAnnounce(t *testing.T, torrent, url string) string {
	t.Helper()
	text, err := os.ReadFile(torrent)
	must(t, err)
	key := announceKey.Find(text)
	if key == nil {
		t.Fatalf("%s does not begin with a tracker: %q", torrent, text[:min(len(text), 100)])
	}
	out := filepath.Join(t.TempDir(), "announce.torrent")
	must(t, os.WriteFile(out, append(fmt.Appendf(nil, "d8:announce%d:%s", len(url), url), text[len(key):]...), 0o644))
	return out
}

// foreignCopy checks what a client that knows only files made of the release.
func foreignCopy(t *testing.T, source, dir string, omits ...string) {
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
	diff, err := compare.Content(t.Context(), source, dir, append([]string{"/.pad", "/lib/tool.hard"}, omits...)...)
	must(t, err)
	if len(diff) > 0 {
		t.Errorf("%s differs from %s:\n%s", dir, source, strings.Join(diff, "\n"))
	}
}
