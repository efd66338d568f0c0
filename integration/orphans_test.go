package integration

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// TestOrphans: the origin, which is also the only tracker, is killed once one host
// has everything; the slower hosts finish among themselves. An origin that comes back
// knows all hosts again after an interval of announces.
func TestOrphans(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Root)
	source := sampleTree(t, 20, 12, 1<<20)
	var took [2]time.Duration
	for i, kill := range []bool{false, true} {
		took[i] = orphans(t, source, kill)
	}
	t.Logf("the last host had all after %.1f s, and after %.1f s with the origin killed when the first had it: %.2f",
		took[0].Seconds(), took[1].Seconds(), took[1].Seconds()/took[0].Seconds())
}

// orphans brings source to one fast host and three slow ones and returns how long
// that took.
func orphans(t *testing.T, source string, kill bool) time.Duration {
	l := lab.New(t, "origin", "fast", "b", "c", "d")
	o := newOrigin(t, l.Host("origin"))
	release := o.publish(source, "app/orphans")
	nodes, procs, began := map[string]*node{}, map[string]*lab.Process{}, time.Now()
	for _, name := range []string{"fast", "b", "c", "d"} {
		n := o.newNode(l.Host(name))
		if name != "fast" {
			n.Shape(lab.Shape{Up: "20mbit", Down: "20mbit"})
		}
		nodes[name], procs[name] = n, n.daemon("fetch", "fetch", release.Version, filepath.Join(n.Releases(), "orphans"),
			"--origin", o.url(), "--linger", "2m")
	}
	nodes["fast"].reach(procs["fast"], release.Version, "lingering", time.Minute)
	if missing := nodes["b"].status(release.Version); missing.State == "lingering" {
		t.Fatalf("the slow hosts are done as well: %+v", missing)
	}
	if kill {
		o.proc.Kill()
	}
	for name, p := range procs {
		nodes[name].reach(p, release.Version, "lingering", time.Minute)
	}
	took := time.Since(began)
	if kill {
		for _, n := range nodes {
			equal(t, source, filepath.Join(n.Releases(), "orphans"))
		}
		o.start()
		o.knows(release.Infohash, "8:completei4e")
	}
	return took
}

// knows waits until the tracker says this of a swarm: an interval at most.
func (o *origin) knows(infohash, what string) {
	o.t.Helper()
	hash, err := hex.DecodeString(infohash)
	must(o.t, err)
	ctx, cancel := context.WithTimeout(o.t.Context(), 25*time.Second)
	defer cancel()
	var last string
	if err := lab.Poll(ctx, func() (bool, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, o.url()+"/scrape?info_hash="+url.QueryEscape(string(hash)), nil)
		if err != nil {
			return false, err
		}
		answer, err := o.Client().Do(r)
		if err != nil {
			return false, nil
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		last = string(b)
		return strings.Contains(last, what), err
	}); err != nil {
		o.t.Errorf("the tracker does not say %s, but %q: %v", what, last, err)
	}
}
