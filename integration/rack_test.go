package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// TestRacks: into each rack comes little more than one copy, also over the
// headers of the packets, however many hosts stand there.
func TestRacks(t *testing.T) {
	const racks, each = 2, 4
	l := lab.New(t, "origin")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 20, 3, 2<<20)
	release := o.publish(source, "racked/1")
	o.Shape(lab.Shape{Up: "50mbit"})
	var switches []*lab.Rack
	for i := range racks {
		switches = append(switches, l.Rack(fmt.Sprintf("r%d", i)))
	}
	type member struct {
		*node
		p *lab.Process
	}
	var members []member
	for i := range racks * each {
		n := o.newNode(l.Add(fmt.Sprintf("h%d", i)))
		switches[i%racks].Put(n.Host)
		n.Shape(lab.Shape{Up: "50mbit", Down: "50mbit"})
		name := filepath.Join(n.Dir, "rack")
		must(t, os.WriteFile(name, fmt.Appendf(nil, "r%d\n", i%racks), 0o644))
		p := n.daemon("fetch", "fetch", release.Version, filepath.Join(n.Releases(), "1"), "--origin", o.url(), "--rack", "@"+name, "--linger", "10m")
		members = append(members, member{n, p})
	}
	for _, m := range members {
		m.reach(m.p, release.Version, "lingering", time.Minute)
	}
	for i, r := range switches {
		got := float64(r.Traffic().Received) / float64(release.Bytes)
		t.Logf("rack %d received %.2f copies", i, got)
		if got > 1.4 {
			t.Errorf("%.2f copies came into rack %d", got, i)
		}
	}
	equal(t, source, filepath.Join(members[0].Releases(), "1"))
}
