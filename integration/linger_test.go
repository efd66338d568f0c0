package integration

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// TestLingerByNeed: a host seeds on beyond --linger while another lacks what few
// have, says why, and ends when that one is done. With --linger-max 0s it does
// not. Who comes when all have ended gets everything from the origin.
func TestLingerByNeed(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Root)
	l := lab.New(t, "origin", "a", "b", "c")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 10, 3, 1<<20)
	release := o.publish(source, "app/need")
	fetch := func(name string, more ...string) (*node, *lab.Process) {
		n := o.newNode(l.Host(name))
		return n, n.daemon("fetch", append([]string{"fetch", release.file, filepath.Join(n.Releases(), "need"),
			"--peer-listen", n.Addr + ":7072", "--linger", "1s"}, more...)...)
	}
	a, pa := fetch("a", "--linger-max", "1m")
	a.reach(pa, release.Version, "lingering", 30*time.Second)
	b, pb := fetch("b", "--down", "512KiB", "--linger-max", "0s", "--peer", a.Addr+":7072")
	b.reach(pb, release.Version, "announced", 10*time.Second)
	must(t, lab.Poll(t.Context(), func() (bool, error) { return b.status(release.Version).BytesHave > 0, nil }))
	o.proc.Kill()

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	must(t, pa.WaitLog(ctx, "seeding on by need"))
	table := a.ok("status")
	if s := a.status(release.Version); s.State != "lingering" || !strings.Contains(s.LingerWhy, "1 peer lacks") || s.LingerLeftMS < 20_000 ||
		!strings.Contains(table, "seeds on 1 peer lacks") {
		t.Errorf("%+v\n%s", s, table)
	}
	for _, p := range []*lab.Process{pb, pa} { // b first: a waits for it
		if code, err := p.Wait(ctx); code != 0 || err != nil {
			t.Fatalf("exit %d, %v\n%s", code, err, p.Tail(30))
		}
	}
	equal(t, source, filepath.Join(b.Releases(), "need"))

	o.start()
	c, pc := fetch("c", "--linger", "0s")
	if code, err := pc.Wait(ctx); code != 0 || err != nil {
		t.Fatalf("the late joiner: exit %d, %v\n%s", code, err, pc.Tail(30))
	}
	equal(t, source, filepath.Join(c.Releases(), "need"))
}
