package swarm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"dcfs/cache/piece"
	"dcfs/swarm/trade"
)

// traders are hosts that share by a plan of their own.
func traders(t *testing.T, rel *release, n int) []*host {
	t.Helper()
	seed := newHost(t, rel, true, NodeConfig{Trade: true})
	spec := seed.spec()
	spec.Steer = true
	hosts := []*host{seed.join(spec)}
	for range n {
		hosts = append(hosts, newHost(t, rel, false, NodeConfig{Trade: true}).joinPeers(hosts...))
	}
	return hosts
}

// TestTraders: all get everything, and little of it twice.
func TestTraders(t *testing.T) {
	rel := newRelease(t, 8<<20, 64<<10)
	hosts := traders(t, rel, 4)
	for _, h := range hosts[1:] {
		h.mustComplete()
	}
	for i, h := range hosts[1:] {
		if st := h.swarm.Stats(); st.Received > rel.layout.Total*11/10 {
			t.Errorf("host %d received %d bytes of %d", i, st.Received, rel.layout.Total)
		}
	}
}

// TestTradersAndOthers: who does not know the plan gets everything from those
// that do, and they from it.
func TestTradersAndOthers(t *testing.T) {
	rel := newRelease(t, 4<<20, 64<<10)
	hosts := traders(t, rel, 2)
	plain := newHost(t, rel, false, NodeConfig{}).joinPeers(hosts...)
	plain.mustComplete()
	hosts[1].mustComplete()
	late := newHost(t, rel, false, NodeConfig{Trade: true}).joinPeers(plain)
	late.mustComplete()
}

// TestTraderThatLies is banned, and the others finish.
func TestTraderThatLies(t *testing.T) {
	rel := newRelease(t, 2<<20, 64<<10)
	liar, err := NewNode(NodeConfig{Listen: "127.0.0.2:0", Trade: true})
	if err != nil {
		t.Fatal(err)
	}
	defer liar.Close()
	lie, err := liar.Join(t.Context(), Spec{InfoHash: rel.hash, Info: rel.info, Total: rel.layout.Total, Store: lyingStore{}})
	if err != nil {
		t.Fatal(err)
	}
	defer lie.Leave(t.Context())
	honest := newHost(t, rel, true, NodeConfig{Listen: "127.0.0.3:0", Trade: true}).joinPeers()
	h := newHost(t, rel, false, NodeConfig{Listen: "127.0.0.4:0", Trade: true})
	spec := h.spec()
	spec.Peers = []string{liar.Addr(), honest.node.Addr()}
	h.join(spec)
	h.mustComplete()
	for _, ip := range h.node.bans.list() {
		if ip.String() != "127.0.0.2" {
			t.Errorf("%s was banned, and was honest", ip)
		}
	}
}

// TestTradersOfOnePiece: it is the one that the library does not see.
func TestTradersOfOnePiece(t *testing.T) {
	for _, h := range traders(t, newRelease(t, 4, 16<<10), 2) {
		h.mustComplete()
	}
}

// TestTraderThatReads: what is read comes before the rest, and that goes on
// afterwards. All of it is counted.
func TestTraderThatReads(t *testing.T) {
	rel := newRelease(t, 16<<20, 64<<10)
	hosts := traders(t, rel, 1)
	origin := hosts[0]
	h := newHost(t, rel, false, NodeConfig{Trade: true, Gate: rated(0, 4<<20)}).joinPeers(hosts...)
	last := piece.Index(rel.layout.Count() - 1)
	for i := last; i > last-20; i-- {
		buf := make([]byte, 100)
		if _, err := h.store.ReadAt(t.Context(), buf, int64(i)*rel.layout.Length); err != nil {
			t.Fatalf("piece %d: %v", i, err)
		}
	}
	h.mustComplete()
	if s := h.swarm.Sources(); s.Origin+s.Peers < rel.layout.Total || s.First.IsZero() {
		t.Errorf("bytes by source: %+v of %d", s, rel.layout.Total)
	}
	if from := h.swarm.From(0); len(from) == 0 {
		t.Errorf("nobody is named for a piece that came; the origin is %s", origin.node.Addr())
	}
}

// TestTraderIsNamed: whom the plan asks for a piece, and since when, is known;
// also who has the piece that is hidden from the library.
func TestTraderIsNamed(t *testing.T) {
	rel := newRelease(t, 4<<20, 64<<10)
	seed := newHost(t, rel, true, NodeConfig{Trade: true, Gate: rated(64<<10, 0)}).joinPeers()
	h := newHost(t, rel, false, NodeConfig{Trade: true}).joinPeers(seed)
	last := piece.Index(rel.layout.Count() - 1)
	var link Link
	eventually(t, func() bool {
		if links := h.swarm.Links(); len(links) == 1 {
			link = links[0]
		}
		return len(link.asked) > 2 && link.Has(last)
	}, func() string { return fmt.Sprintf("%+v", link) })
	if link.Addr != seed.node.Addr() || link.Asked < len(link.asked) || link.Since.IsZero() || time.Since(link.Since) > patience {
		t.Errorf("%+v", link)
	}
	for i, since := range link.asked {
		if got := h.swarm.Asked(i); len(got) != 1 || got[0].Since.IsZero() || time.Since(since) > patience {
			if !h.store.Have(i) { // it may have come meanwhile
				t.Errorf("piece %d, asked since %v: %+v: %s", i, since, got, h.swarm.Explain(i))
			}
		}
	}
}

// A peer says who it is by the names of its extensions, and may say anything.
func TestWhoIs(t *testing.T) {
	names := func(of ...string) map[pp.ExtensionName]pp.ExtensionNumber {
		m := map[pp.ExtensionName]pp.ExtensionNumber{"ut_pex": 1}
		for i, name := range of {
			m[pp.ExtensionName(name)] = pp.ExtensionNumber(i + 2)
		}
		return m
	}
	for _, test := range []struct {
		names  []string
		steers bool
		rack   string
	}{
		{[]string{"dcfs_trade"}, false, ""},
		{[]string{"dcfs_trade", "dcfs_steer"}, true, ""},
		{[]string{"dcfs_rack=a7"}, false, "a7"},
		{[]string{"dcfs_rack="}, false, ""},
		{[]string{"dcfs_rack=a7", "dcfs_rack=b", "dcfs_rack=a9"}, false, "b"},
		{[]string{"dcfs_rack=" + strings.Repeat("x", trade.MaxRack+1)}, false, ""},
	} {
		w := whoIs(torrent.PeerID{1}, names(test.names...))
		if w.Steers != test.steers || w.Rack != test.rack || w.Key != keyOf(torrent.PeerID{1}) {
			t.Errorf("%.40q: %+v", test.names, w)
		}
	}
}
