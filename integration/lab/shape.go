package lab

import (
	"encoding/json"
	"fmt"
	"os/exec"
)

// Shape is the rate of a host's link in each direction, as tc(8) writes rates
// ("40mbit", "256kbit"). Empty means as fast as the machine goes.
type Shape struct {
	Up   string // from the host
	Down string // to the host
}

// Traffic counts bytes on a host's link, Ethernet headers included.
type Traffic struct {
	Sent     uint64 // from the host
	Received uint64 // to the host
}

// Shape sets the rates of the host's link, at any time, and fails the test when
// it cannot. Connections stay.
func (h *Host) Shape(s Shape) {
	h.lab.t.Helper()
	for _, q := range []struct{ ns, dev, rate string }{
		{h.namespace, "eth0", s.Up},
		{h.lab.hub, h.port, s.Down},
	} {
		if err := limit(q.ns, q.dev, q.rate); err != nil {
			h.lab.t.Fatal(err)
		}
	}
}

func limit(namespace, device, rate string) error {
	args := []string{"-n", namespace, "qdisc", "replace", "dev", device, "root"}
	if rate == "" {
		args = append(args, "pfifo", "limit", "1000")
	} else {
		// The burst holds the largest segment that a veth carries unsplit; 50 ms
		// of queue is what a switch port would hold.
		args = append(args, "tbf", "rate", rate, "burst", "128kb", "latency", "50ms")
	}
	if out, err := exec.Command("tc", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("tc %v: %w: %s", args, err, out)
	}
	return nil
}

// Cut takes the host off the network; its connections hang as with a pulled
// cable.
func (h *Host) Cut() {
	h.lab.t.Helper()
	h.lab.batch("-n "+h.lab.hub, "link set "+h.port+" down")
}

// Heal undoes Cut. The host forgets whom it looked for in vain meanwhile: else the
// kernel may say for another second that there is no way there.
func (h *Host) Heal() {
	h.lab.t.Helper()
	h.lab.batch("-n "+h.lab.hub, "link set "+h.port+" up")
	h.lab.batch("-n "+h.namespace, "neigh flush all")
}

// Traffic reads the counters of the host's link.
func (h *Host) Traffic() Traffic {
	h.lab.t.Helper()
	all, err := h.lab.Traffic()
	if err != nil {
		h.lab.t.Fatalf("counters of %s: %v", h.Name, err)
	}
	return all[h.Name]
}

// Traffic reads the counters of all hosts' links at once, by the hosts' names.
func (l *Lab) Traffic() (map[string]Traffic, error) {
	links, err := l.counters()
	if err != nil {
		return nil, err
	}
	all := make(map[string]Traffic, len(l.hosts))
	for _, h := range l.hosts {
		count, ok := links[h.port]
		if !ok {
			return nil, fmt.Errorf("%s has no link", h.Name)
		}
		all[h.Name] = count
	}
	return all, nil
}

// counters reads the counters of all links of the hub, by their names there. What
// the hub's end of a link receives is what the other end sent.
func (l *Lab) counters() (map[string]Traffic, error) {
	out, err := exec.Command("ip", "-n", l.hub, "-s", "-j", "link", "show").Output()
	if err != nil {
		return nil, err
	}
	type counter struct {
		Bytes uint64 `json:"bytes"`
	}
	var links []struct {
		Name  string `json:"ifname"`
		Stats struct {
			RX counter `json:"rx"`
			TX counter `json:"tx"`
		} `json:"stats64"`
	}
	if err := json.Unmarshal(out, &links); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	all := make(map[string]Traffic, len(links))
	for _, link := range links {
		all[link.Name] = Traffic{Sent: link.Stats.RX.Bytes, Received: link.Stats.TX.Bytes}
	}
	return all, nil
}
