package swarm

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"

	"dcfs/cache/piece"
)

// What came is known by who sent it: the address where that peer listens, also
// when it dialled us, and whether it is an origin.
func TestTrailOfPieces(t *testing.T) {
	rel := newRelease(t, 4<<20, 256<<10)
	origin := newHost(t, rel, true, NodeConfig{Listen: "127.0.0.3:0", Origin: true}).joinPeers()
	h := newHost(t, rel, false, NodeConfig{Listen: "127.0.0.4:0"}).joinPeers(origin)
	h.mustComplete()
	for i := range rel.all().End {
		if from := h.swarm.From(i); !slices.Equal(from, []string{origin.node.Addr()}) {
			t.Fatalf("piece %d came from %v, want %s", i, from, origin.node.Addr())
		}
	}
	if s := h.swarm.Sources(); s.Peers != 0 || s.Origin < rel.layout.Total {
		t.Errorf("bytes by source: %+v of %d", s, rel.layout.Total)
	}
	late := newHost(t, rel, false, NodeConfig{Listen: "127.0.0.5:0"}).joinPeers()
	origin.leave()
	h.swarm.task(func() { h.swarm.add("M", resolve(t.Context(), late.node.Addr())) })
	late.mustComplete()
	if from := late.swarm.From(0); !slices.Equal(ports(from), ports([]string{h.node.Addr()})) {
		t.Errorf("a piece that a peer which dialled us sent came from %v, want the port of %s", from, h.node.Addr())
	}
	if s := late.swarm.Sources(); s.Origin != 0 || s.Peers < rel.layout.Total {
		t.Errorf("bytes by source: %+v of %d", s, rel.layout.Total)
	}
	if from := h.swarm.From(rel.all().End); from != nil {
		t.Errorf("a piece that is not there came from %v", from)
	}
}

// A peer that is known to have a piece, takes requests and is asked for it shows
// in the links, and a limit that holds the bytes back shows as such.
func TestLinksUnderALimit(t *testing.T) {
	rel := newRelease(t, 8<<20, 256<<10)
	seed := newHost(t, rel, true, NodeConfig{}).joinPeers()
	h := newHost(t, rel, false, NodeConfig{Gate: rated(0, 512<<10)}).joinPeers(seed)
	var links []Link
	eventually(t, func() bool {
		links = h.swarm.Links()
		return len(links) == 1 && links[0].Asked > 0 && !links[0].Sent.IsZero()
	}, func() string { return fmt.Sprintf("links %+v", links) })
	l := links[0]
	if l.Addr != seed.node.Addr() || !l.Choking.IsZero() || !l.Has(0) || l.Since.IsZero() {
		t.Errorf("the link: %+v, want %s", l, seed.node.Addr())
	}
	owed := false
	for i := range rel.all().End {
		since, ok := l.AskedFor(i)
		owed = owed || ok && !since.IsZero()
	}
	if !owed {
		t.Error("blocks are asked for, and of no piece")
	}
	eventually(t, h.node.Throttled, func() string { return "the limit holds nothing back" })
	if seed.node.Throttled() {
		t.Error("a node without a limit is held back by it")
	}
}

// A wrong piece is counted and its liar is not taken for the source of what
// came afterwards.
func TestTrailForgetsWrongPieces(t *testing.T) {
	rel := newRelease(t, 1<<20, 256<<10)
	liar, err := NewNode(NodeConfig{Listen: "127.0.0.2:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer liar.Close()
	lie, err := liar.Join(t.Context(), Spec{InfoHash: rel.hash, Info: rel.info, Total: rel.layout.Total, Store: lyingStore{}})
	if err != nil {
		t.Fatal(err)
	}
	defer lie.Leave(context.Background())
	h := newHost(t, rel, false, NodeConfig{Listen: "127.0.0.4:0"})
	spec := h.spec()
	spec.Peers = []string{liar.Addr()}
	h.join(spec)
	eventually(t, func() bool { return h.swarm.Trouble().HashFailures > 0 }, func() string { return "no hash failure is counted" })
	honest := newHost(t, rel, true, NodeConfig{Listen: "127.0.0.3:0"})
	spec = honest.spec()
	spec.Peers = []string{h.node.Addr()}
	honest.join(spec)
	h.mustComplete()
	for i := range piece.Index(rel.layout.Count()) {
		if from := h.swarm.From(i); !slices.Contains(ports(from), ports([]string{honest.node.Addr()})[0]) {
			t.Errorf("piece %d is right and came from %v", i, from)
		}
	}
}

// ports leaves the hosts out: who dials over loopback comes from 127.0.0.1,
// wherever it listens.
func ports(addrs []string) (out []string) {
	for _, a := range addrs {
		_, port, _ := net.SplitHostPort(a)
		out = append(out, port)
	}
	return out
}
