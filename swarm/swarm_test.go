package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/anacrolix/torrent"

	"dcfs/cache/piece"
	"dcfs/swarm/tracker"
)

// One seed, two leechers that know the seed only: they learn of each other.
func TestPeersByConfiguration(t *testing.T) {
	for _, c := range []struct{ total, length int64 }{
		{1, 16 << 10}, {100 << 10, 16 << 10}, {3<<20 + 5, 256 << 10}, {5 << 20, 1 << 20},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			rel := newRelease(t, c.total, c.length)
			seed := newHost(t, rel, true, NodeConfig{}).joinPeers()
			a := newHost(t, rel, false, NodeConfig{}).joinPeers(seed)
			b := newHost(t, rel, false, NodeConfig{}).joinPeers(seed)
			a.mustComplete()
			b.mustComplete()
			st := a.swarm.Stats()
			if st.Useful < c.total || seed.swarm.Stats().Sent == 0 || seed.store.Stats().Claimed != 0 {
				t.Errorf("figures: %+v, seed %+v", st, seed.swarm.Stats())
			}
		})
	}
}

// announces is a tracker that remembers what it was asked.
type announces struct {
	*tracker.Tracker
	mu     sync.Mutex
	events []string
}

func (a *announces) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	a.mu.Lock()
	a.events = append(a.events, fmt.Sprintf("%s:%s left=%s", q.Get("port"), q.Get("event"), q.Get("left")))
	a.mu.Unlock()
	a.Tracker.ServeHTTP(w, r)
}

func (a *announces) heard(h *host, event, left string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.events, fmt.Sprintf("%d:%s left=%s", h.node.Port(), event, left))
}

// Hosts meet by a tracker alone, hold one connection to each other whoever
// dialled, and say when they come, are complete, and go.
func TestPeersByTracker(t *testing.T) {
	rel := newRelease(t, 2<<20, 64<<10)
	tr := &announces{Tracker: tracker.New(tracker.Config{})}
	server := httptest.NewServer(tr)
	defer server.Close()
	var hosts []*host
	for i := range 4 {
		h := newHost(t, rel, i == 0, NodeConfig{})
		spec := h.spec()
		spec.Trackers = []string{server.URL + "/announce"}
		hosts = append(hosts, h.join(spec))
	}
	for _, h := range hosts {
		h.mustComplete()
	}
	for i, h := range hosts {
		left := "0"
		if i > 0 {
			left = fmt.Sprint(rel.layout.Total)
			eventually(t, func() bool { return tr.heard(h, "completed", "0") }, func() string { return fmt.Sprint(tr.events) })
		}
		if !tr.heard(h, "started", left) {
			t.Errorf("host %d did not say that it started: %q", i, tr.events)
		}
	}
	if tr.heard(hosts[0], "completed", "0") {
		t.Error("the seed calls itself completed")
	}
	hosts[1].leave()
	if !tr.heard(hosts[1], "stopped", "0") {
		t.Errorf("no goodbye: %q", tr.events)
	}
}

// Two hosts that dial each other at the same time end up with one connection,
// and each knows by which address the other listens.
func TestOneConnectionForTwoHosts(t *testing.T) {
	for i := range 6 {
		rel := newRelease(t, 1<<20+int64(i), 64<<10)
		// Both leech, so that neither turns away as complete.
		a, b := newHost(t, rel, false, NodeConfig{}), newHost(t, rel, false, NodeConfig{})
		var both sync.WaitGroup
		both.Go(func() { a.joinPeers(b) })
		both.Go(func() { b.joinPeers(a) })
		both.Wait()
		knows := func(h, other *host) bool {
			return h.swarm.connected()[netip.MustParseAddrPort(other.node.Addr())]
		}
		eventually(t, func() bool {
			return len(a.swarm.Peers()) == 1 && len(b.swarm.Peers()) == 1 && knows(a, b) && knows(b, a)
		}, func() string { return fmt.Sprintf("%+v and %+v", a.swarm.Peers(), b.swarm.Peers()) })
	}
}

// A piece in demand comes before the background is done.
func TestDemandGoesFirst(t *testing.T) {
	rel := newRelease(t, 12<<20, 64<<10)
	seed := newHost(t, rel, true, NodeConfig{Gate: rated(8<<20, 0)}).joinPeers()
	h := newHost(t, rel, false, NodeConfig{}).joinPeers(seed)
	if err := h.store.Wait(t.Context(), 1); err != nil { // the background has begun
		t.Fatal(err)
	}
	last := rel.all().End - 1
	p := make([]byte, 10)
	if _, err := h.store.ReadAt(t.Context(), p, rel.layout.Total-10); err != nil || !bytes.Equal(p, rel.data[rel.layout.Total-10:]) {
		t.Fatal(err)
	}
	if st := h.store.Stats(); st.Pieces > rel.layout.Count()*9/10 {
		t.Errorf("piece %d came when %d of %d were here", last, st.Pieces, rel.layout.Count())
	}
	h.mustComplete()
}

// Nothing is fetched that nobody wants; what a reader wants is.
func TestOnlyWhatIsWanted(t *testing.T) {
	rel := newRelease(t, 1<<20, 64<<10)
	seed := newHost(t, rel, true, NodeConfig{}).joinPeers()
	h := newHost(t, rel, false, NodeConfig{}).joinPeers(seed)
	h.swarm.Prefetch(rel.all(), piece.None)
	before := h.store.Stats().Pieces
	for _, i := range []piece.Index{9, 3, 15} {
		p := make([]byte, 1)
		if _, err := h.store.ReadAt(t.Context(), p, rel.layout.Offset(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.store.Stats().Pieces; before == 0 && got != 3 {
		t.Errorf("%d pieces came, and 3 were wanted", got)
	}
	h.swarm.Prefetch(rel.all(), piece.Background)
	h.mustComplete()
}

func TestUrgencies(t *testing.T) {
	rel := newRelease(t, 10, 1)
	h := newHost(t, rel, false, NodeConfig{}).joinPeers()
	s, all := h.swarm, rel.all()
	is := func(i int, want torrent.PiecePriority) {
		t.Helper()
		if got := s.t.PieceState(i).Priority; got != want {
			t.Errorf("piece %d has priority %v, want %v", i, got, want)
		}
	}
	is(0, torrent.PiecePriorityNormal)
	s.Want(piece.Range{First: 2, End: 4}, piece.Demand)
	s.Want(piece.Range{First: 3, End: 5}, piece.Window)
	is(2, torrent.PiecePriorityNow)
	is(3, torrent.PiecePriorityNow)
	is(4, torrent.PiecePriorityNext)
	s.Prefetch(all, piece.None)
	is(3, torrent.PiecePriorityNow)
	is(9, torrent.PiecePriorityNone)
	s.Prefetch(piece.Range{First: 3, End: 4}, piece.Trace)
	s.Relax(all)
	is(2, torrent.PiecePriorityNone)
	is(3, torrent.PiecePriorityReadahead)
	s.Want(piece.Range{First: -5, End: 99}, piece.Neighbour) // clipped
	is(9, torrent.PiecePriorityHigh)
	h.leave()
	s.Leave(t.Context())
	s.Want(all, piece.Demand)
	s.Relax(all)
	s.Prefetch(all, piece.None)
	s.Lost(3)
	s.Lost(-1)
}

func TestFetchInfo(t *testing.T) {
	rel := newRelease(t, 1<<20, 16<<10)
	seed := newHost(t, rel, true, NodeConfig{}).joinPeers()
	h := newHost(t, rel, false, NodeConfig{})
	for range 2 { // and again
		info, err := h.node.FetchInfo(t.Context(), rel.hash, nil, []string{seed.node.Addr()})
		if err != nil || !bytes.Equal(info, rel.info) {
			t.Fatalf("%d bytes, %v", len(info), err)
		}
	}
	h.joinPeers(seed).mustComplete()
	if _, err := h.node.FetchInfo(t.Context(), rel.hash, nil, nil); err == nil {
		t.Error("metadata of a swarm that is joined was fetched")
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	other := [20]byte{1}
	if _, err := h.node.FetchInfo(ctx, other, nil, []string{seed.node.Addr()}); !errors.Is(err, ErrNoMetadata) || !errors.Is(err, cause) {
		t.Errorf("nobody has it, and the error is %v", err)
	}
}

func TestJoinRefuses(t *testing.T) {
	rel := newRelease(t, 100, 10)
	h := newHost(t, rel, false, NodeConfig{}).joinPeers()
	if _, err := h.node.Join(t.Context(), h.spec()); err == nil {
		t.Error("a swarm was joined twice")
	}
	bad := h.spec()
	bad.InfoHash, bad.Info = [20]byte{2}, []byte("d4:name")
	if _, err := h.node.Join(t.Context(), bad); err == nil {
		t.Error("broken metadata was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	late := h.spec()
	late.InfoHash = [20]byte{3}
	if s, err := h.node.Join(ctx, late); !errors.Is(err, context.Canceled) || s != nil {
		t.Errorf("joined after the end: %v", err)
	}
}

func TestErrListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, addr := range []string{l.Addr().String(), "192.0.2.1:0", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "127.0.0.1:-1"} {
		if n, err := NewNode(NodeConfig{Listen: addr}); !errors.Is(err, ErrListen) {
			t.Errorf("%s: %v", addr, err)
			if n != nil {
				n.Close()
			}
		}
	}
	a, err := NewNode(NodeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := NewNode(NodeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if a.Port() < FirstPort || b.Port() > LastPort || a.Port() == b.Port() {
		t.Errorf("ports %d and %d", a.Port(), b.Port())
	}
}

// A node that is closed while its swarms are joined leaves nothing behind; the
// leak check of TestMain sees to that.
func TestCloseWithoutLeave(t *testing.T) {
	rel := newRelease(t, 100, 10)
	server := httptest.NewServer(tracker.New(tracker.Config{}))
	defer server.Close()
	n, err := NewNode(NodeConfig{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.Join(t.Context(), Spec{
		InfoHash: rel.hash, Info: rel.info, Total: 100, Store: lyingStore{},
		Trackers: []string{server.URL + "/announce", "http://127.0.0.1:1/announce", "udp://127.0.0.1:1"},
		Peers:    []string{"127.0.0.1:1", "not an address", "127.0.0.1:port"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}
