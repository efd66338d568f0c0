package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// TestMaxPeers: of eight that have the release, and of four that fetch it, a host
// with --max-peers 3 keeps connections with three, as the kernel counts them, and
// gets everything; so does an origin.
func TestMaxPeers(t *testing.T) {
	lab.Require(t, lab.Root, lab.Tool("ss"))
	names := []string{"origin", "few"}
	for k := range 8 {
		names = append(names, fmt.Sprintf("h%d", k))
	}
	l := lab.New(t, names...)
	o := newOrigin(t, l.Host("origin"), "--max-peers", "3")
	source := sampleTree(t, 5, 4, 2<<20)
	o.publish(source, "v")
	fetch := func(n *node, more ...string) *lab.Process {
		return n.daemon("fetch", append([]string{"fetch", "v", filepath.Join(n.Releases(), "v"), "--origin", o.url(),
			"--linger", "2m", "--peer-listen", n.Addr + ":7072"}, more...)...)
	}
	for _, name := range names[2:] {
		n := o.newNode(l.Host(name))
		n.Shape(lab.Shape{Down: "40mbit"})
		fetch(n)
	}
	few := o.newNode(l.Host("few"))
	few.Shape(lab.Shape{Down: "16mbit"}) // four seconds
	p := fetch(few, "--max-peers", "3")
	most := map[string]int{}
	before := map[string]map[string]bool{}
	for samples := 0; few.status("v").State != "lingering"; samples++ {
		if !p.Running() || samples > 60 {
			t.Fatalf("it does not get there: %+v\n%s", few.status("v"), p.Tail(20))
		}
		for name, n := range map[string]*node{"few": few, "origin": o.node} {
			now := peerConnections(t, n)
			lasting := 0 // what is there twice: who comes one too many is hung up on at once
			for c := range now {
				if before[name][c] {
					lasting++
				}
			}
			most[name], before[name] = max(most[name], lasting), now
		}
		time.Sleep(500 * time.Millisecond)
	}
	equal(t, source, filepath.Join(few.Releases(), "v"))
	t.Logf("connections that last: %v", most)
	for name, n := range most {
		if n > 3 || n == 0 {
			t.Errorf("%s has %d connections, 3 are allowed", name, n)
		}
	}
}

// peerConnections are the connections of a host to or from a peer's port.
func peerConnections(t *testing.T, n *node) map[string]bool {
	t.Helper()
	out, err := n.Command(t.Context(), "ss", "-Htn", "state", "established").Output()
	must(t, err)
	found := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line) // Recv-Q Send-Q LOCAL:PORT PEER:PORT
		if len(f) == 4 && (strings.HasSuffix(f[2], ":7071") || strings.HasSuffix(f[2], ":7072") || strings.HasSuffix(f[3], ":7071") || strings.HasSuffix(f[3], ":7072")) {
			found[f[2]+" "+f[3]] = true
		}
	}
	return found
}
