package swarm

import (
	"net/netip"
	"testing"
	"time"

	"dcfs/swarm/gate"
	"dcfs/swarm/gate/gatetest"
)

func gateOf(t testing.TB, ca *gatetest.CA) *gate.Gate {
	t.Helper()
	id, err := gate.LoadIdentity(ca.Dir(gatetest.Leaf{}), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &gate.Gate{Identity: id}
}

// TestTradersBehindGates: hosts share by their plan inside TLS, and strangers
// have no part in it.
func TestTradersBehindGates(t *testing.T) {
	rel := newRelease(t, 8<<20, 64<<10)
	ca := gatetest.NewCA(t, "fleet")
	seed := newHost(t, rel, true, NodeConfig{Trade: true, Gate: gateOf(t, ca)})
	spec := seed.spec()
	spec.Steer = true
	seed.join(spec)
	strangers := []*host{
		newHost(t, rel, false, NodeConfig{Trade: true}).joinPeers(seed),
		newHost(t, rel, false, NodeConfig{Trade: true, Gate: gateOf(t, gatetest.NewCA(t, "other"))}).joinPeers(seed),
	}
	var fleet []*host
	from := seed
	for range 3 { // each knows the one before
		h := newHost(t, rel, false, NodeConfig{Trade: true, Gate: gateOf(t, ca)}).joinPeers(from)
		fleet, from = append(fleet, h), h
	}
	for _, h := range fleet {
		h.mustComplete()
		if at := netip.MustParseAddrPort(h.node.Addr()); h.node.Port() == 0 || h.node.Port() != int(at.Port()) {
			t.Errorf("it tells others port %d and listens at %s", h.node.Port(), at)
		}
		if came, _, _ := h.swarm.exchange.received.totals(); came == 0 {
			t.Error("the plan had no part in it")
		}
	}
	_, refused := seed.node.gate.Refused()
	for _, h := range strangers {
		if st := h.swarm.Stats(); st.Received != 0 || st.Peers != 0 || h.store.Stats().Pieces != 0 {
			t.Errorf("a stranger has %+v", st)
		}
	}
	if refused == 0 {
		t.Error("no stranger was refused")
	}
}

// TestOutsideTheNetworks: who is outside is neither let in nor dialled.
func TestOutsideTheNetworks(t *testing.T) {
	rel := newRelease(t, 1<<20, 64<<10)
	only := func(net string) *gate.Gate { return &gate.Gate{Allow: gate.Networks{netip.MustParsePrefix(net)}} }
	seed := newHost(t, rel, true, NodeConfig{Gate: only("127.0.0.2/32")}).joinPeers()
	h := newHost(t, rel, false, NodeConfig{}).joinPeers(seed) // from 127.0.0.1
	eventually(t, func() bool { n, _ := seed.node.gate.Refused(); return n > 0 }, func() string { return "nobody came" })
	if st := h.swarm.Stats(); st.Received != 0 || st.Peers != 0 {
		t.Errorf("from outside: %+v", st)
	}
	other := newHost(t, rel, true, NodeConfig{}).joinPeers()
	picky := newHost(t, rel, false, NodeConfig{Gate: only("10.0.0.0/8")}).joinPeers(other)
	time.Sleep(200 * time.Millisecond)
	if st := other.swarm.Stats(); st.Peers != 0 || picky.swarm.Stats().Received != 0 {
		t.Errorf("it dialled out of its networks: %+v", st)
	}
}
