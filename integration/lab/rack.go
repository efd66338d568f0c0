package lab

import "fmt"

// Rack is a switch that some hosts share, with one link to all others. Its methods
// are safe for concurrent use.
type Rack struct {
	lab    *Lab
	name   string
	bridge string // in the hub
	inner  string // the rack's end of its link
	outer  string // the other end
}

// Rack makes a rack. It fails the test when it cannot.
func (l *Lab) Rack(name string) *Rack {
	l.t.Helper()
	l.mu.Lock()
	l.racks++
	n := l.racks
	l.mu.Unlock()
	r := &Rack{lab: l, name: name, bridge: fmt.Sprintf("rack%d", n), inner: fmt.Sprintf("up%d", n), outer: fmt.Sprintf("down%d", n)}
	l.batch("-n "+l.hub,
		"link add "+r.bridge+" type bridge forward_delay 0",
		"link add "+r.inner+" type veth peer name "+r.outer,
		"link set "+r.inner+" master "+r.bridge, "link set "+r.outer+" master br0",
		"link set "+r.bridge+" up", "link set "+r.inner+" up", "link set "+r.outer+" up")
	return r
}

// Put moves a host into the rack. Its connections may be lost.
func (r *Rack) Put(h *Host) {
	r.lab.t.Helper()
	r.lab.batch("-n "+r.lab.hub, "link set "+h.port+" master "+r.bridge)
}

// Shape sets the rates of the rack's link, as Host.Shape does.
func (r *Rack) Shape(s Shape) {
	r.lab.t.Helper()
	for _, q := range []struct{ dev, rate string }{{r.inner, s.Up}, {r.outer, s.Down}} {
		if err := limit(r.lab.hub, q.dev, q.rate); err != nil {
			r.lab.t.Fatal(err)
		}
	}
}

// Traffic reads the counters of the rack's link: sent from the rack, received by
// it.
func (r *Rack) Traffic() Traffic {
	r.lab.t.Helper()
	links, err := r.lab.counters()
	if err != nil {
		r.lab.t.Fatalf("counters of rack %s: %v", r.name, err)
	}
	return links[r.outer]
}
