package tracker

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPeersMeet(t *testing.T) {
	tr := New(Config{})
	first := peerAt(t, tr, "10.0.0.1", 1, 7071)
	answer := first.with("left", "0", "event", "started").announce()
	wantAddrs(t, answer)
	if answer["interval"] != int64(15) || answer["min interval"] != int64(5) {
		t.Errorf("intervals %v %v", answer["interval"], answer["min interval"])
	}
	if s, ok := answer["peers"].(string); !ok || s != "" {
		t.Errorf("peers of an empty compact answer is %#v", answer["peers"])
	}
	second := peerAt(t, tr, "::ffff:10.0.0.2", 2, 7072)
	wantAddrs(t, second.announce(), "10.0.0.1:7071")
	third := peerAt(t, tr, "fd00::3", 3, 7073)
	answer = third.announce()
	wantAddrs(t, answer, "10.0.0.1:7071", "10.0.0.2:7072")
	if _, there := answer["peers6"]; there {
		t.Error("peers6 without an IPv6 peer")
	}
	answer = second.announce()
	wantAddrs(t, answer, "10.0.0.1:7071", "[fd00::3]:7073")
	wantCounts(t, answer, 1, 2, 0)
	wantAddrs(t, second.with("info_hash", hash(1)).announce())
}

func TestDictionaryForm(t *testing.T) {
	tr := New(Config{})
	peerAt(t, tr, "10.0.0.1", 1, 7071).announce()
	peerAt(t, tr, "fd00::2", 2, 7072).announce()
	c := peerAt(t, tr, "10.0.0.3", 3, 7073).with("compact", "0")
	answer := c.announce()
	wantAddrs(t, answer, "10.0.0.1:7071", "[fd00::2]:7072")
	for _, e := range answer["peers"].([]any) {
		if got := e.(map[string]any)["peer id"]; got != id(1) && got != id(2) {
			t.Errorf("peer id %v", got)
		}
	}
	answer = c.with("no_peer_id", "1").announce()
	wantAddrs(t, answer, "10.0.0.1:7071", "[fd00::2]:7072")
	for _, e := range answer["peers"].([]any) {
		if _, there := e.(map[string]any)["peer id"]; there {
			t.Error("peer id in spite of no_peer_id")
		}
	}
}

func TestSeedsGetOnlyLeechers(t *testing.T) {
	tr := New(Config{})
	seed := peerAt(t, tr, "10.0.0.1", 1, 1).with("left", "0")
	leecher := peerAt(t, tr, "10.0.0.3", 3, 3)
	seed.announce()
	leecher.announce()
	wantAddrs(t, peerAt(t, tr, "10.0.0.2", 2, 2).with("left", "0").announce(), "10.0.0.3:3")
	wantAddrs(t, leecher.announce(), "10.0.0.1:1", "10.0.0.2:2")
	answer := leecher.with("left", "0", "event", "completed").announce()
	wantAddrs(t, answer)
	wantCounts(t, answer, 3, 0, 1)
	wantCounts(t, leecher.with("left", "0", "event", "completed").announce(), 3, 0, 1)
	answer = seed.with("event", "stopped").announce()
	wantAddrs(t, answer)
	wantCounts(t, answer, 2, 0, 1)
	wantCounts(t, leecher.announce(), 1, 1, 1)
}

func TestStopOfAnUnknownPeerMakesNothing(t *testing.T) {
	tr := New(Config{})
	answer := peerAt(t, tr, "10.0.0.1", 1, 1).with("event", "stopped").announce()
	wantAddrs(t, answer)
	wantCounts(t, answer, 0, 0, 0)
	if len(tr.swarms) != 0 {
		t.Error("a swarm was made")
	}
}

func TestOneRecordPerPeerAndPerAddress(t *testing.T) {
	tr := New(Config{})
	watcher := peerAt(t, tr, "10.0.0.9", 9, 9)
	watcher.announce()
	peerAt(t, tr, "10.0.0.1", 1, 1).announce()
	peerAt(t, tr, "10.0.0.2", 1, 2).announce() // moved
	wantAddrs(t, watcher.announce(), "10.0.0.2:2")
	wantAddrs(t, peerAt(t, tr, "10.0.0.2", 3, 2).announce(), "10.0.0.9:9") // restarted
	answer := watcher.announce()
	wantAddrs(t, answer, "10.0.0.2:2")
	wantCounts(t, answer, 0, 2, 0)
	peerAt(t, tr, "10.0.0.1", 1, 1).announce()
	wantAddrs(t, peerAt(t, tr, "10.0.0.2", 1, 2).announce(), "10.0.0.9:9") // moved onto another's
	wantAddrs(t, watcher.announce(), "10.0.0.2:2")
	if n := tr.peers.Load(); n != 2 {
		t.Errorf("%d peers counted", n)
	}
}

func TestExpiry(t *testing.T) {
	c := newClock()
	tr := New(Config{Now: c.now})
	early, late := peerAt(t, tr, "10.0.0.1", 1, 1), peerAt(t, tr, "10.0.0.2", 2, 2)
	early.announce()
	late.with("info_hash", hash(1)).announce()
	c.advance(119 * time.Second)
	wantAddrs(t, late.announce(), "10.0.0.1:1")
	c.advance(time.Second)
	wantAddrs(t, late.announce())
	if len(tr.swarms) != 1 { // the sweep that was due took the other
		t.Errorf("%d swarms", len(tr.swarms))
	}
	c.advance(120 * time.Second)
	if got := tr.Snapshot(); len(got) != 0 {
		t.Errorf("snapshot of the expired: %v", got)
	}
	files := early.get("/scrape?info_hash=" + hash(0))["files"].(map[string]any)
	wantCounts(t, files[hash(0)].(map[string]any), 0, 0, 0)
	if n := tr.peers.Load(); n != 0 {
		t.Errorf("%d peers counted", n)
	}
}

func TestBounds(t *testing.T) {
	c := newClock()
	tr := New(Config{Now: c.now, MaxSwarms: 2, MaxPeersPerSwarm: 2, MaxPeers: 3})
	announce := func(n int, h byte) bool {
		_, refused := peerAt(t, tr, fmt.Sprintf("10.0.0.%d", n), n, n).with("info_hash", hash(h)).announce()["failure reason"]
		return !refused
	}
	for i, step := range []struct {
		peer int
		hash byte
		ok   bool
	}{
		{1, 0, true}, {2, 0, true}, {3, 0, false}, {2, 0, true},
		{3, 1, true}, {4, 1, false}, {4, 2, false},
	} {
		if got := announce(step.peer, step.hash); got != step.ok {
			t.Errorf("step %d: served %v", i, got)
		}
	}
	c.advance(2 * time.Minute)
	if !announce(4, 2) || !announce(4, 3) || announce(4, 4) {
		t.Error("expired swarms were not replaced")
	}
}

func TestNumwant(t *testing.T) {
	tr := New(Config{})
	for i := range 300 {
		peerAt(t, tr, "10.0.0.1", i, 1000+i).with("numwant", "0").announce()
	}
	asker := peerAt(t, tr, "10.0.0.1", 300, 1300)
	for want, n := range map[string]int{"": 50, "-1": 50, "0": 0, "7": 7, "200": 200, "100000": 200} {
		got := addrs(t, asker.with("numwant", want).announce())
		if len(got) != n || len(slices.Compact(got)) != n || slices.Contains(got, "10.0.0.1:1300") {
			t.Errorf("numwant %q: %d peers %v", want, len(got), got)
		}
	}
}

func TestClaimedAddress(t *testing.T) {
	for _, c := range []struct {
		name, remote string
		trust        bool
		params       []string
		want         string // how another host sees the peer; "" when refused
	}{
		{"ignored", "10.0.0.1", false, []string{"ip", "10.9.9.9", "ipv4", "10.9.9.8", "ipv6", "fd00::9"}, "10.0.0.1:1"},
		{"ignored unread", "10.0.0.1", false, []string{"ip", "no address"}, "10.0.0.1:1"},
		{"loopback", "127.0.0.1", false, []string{"ip", "10.9.9.9"}, "10.9.9.9:1"},
		{"mapped loopback", "::ffff:127.0.0.1", false, []string{"ipv6", "fd00::9"}, "[fd00::9]:1"},
		{"trusted", "10.0.0.1", true, []string{"ipv4", "10.9.9.9:55"}, "10.9.9.9:55"},
		{"trusted IPv6 endpoint", "10.0.0.1", true, []string{"ipv6", "[fd00::9]:55"}, "[fd00::9]:55"},
		{"trusted mapped", "10.0.0.1", true, []string{"ip", "::ffff:10.9.9.9"}, "10.9.9.9:1"},
		{"trusted, none", "10.0.0.1", true, nil, "10.0.0.1:1"},
		{"trusted name", "10.0.0.1", true, []string{"ip", "host.example"}, ""},
		{"trusted, unspecified", "10.0.0.1", true, []string{"ip", "0.0.0.0"}, ""},
		{"trusted, multicast", "10.0.0.1", true, []string{"ip", "ff02::1"}, ""},
		{"trusted, port 0", "10.0.0.1", true, []string{"ipv4", "10.9.9.9:0"}, ""},
		{"trusted, loopback of another", "10.0.0.1", true, []string{"ip", "127.0.0.1"}, ""},
		{"zone", "fe80::1%eth0", false, nil, "[fe80::1]:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := New(Config{TrustIPParam: c.trust})
			_, refused := peerAt(t, tr, c.remote, 1, 1).with(c.params...).announce()["failure reason"]
			if refused != (c.want == "") {
				t.Fatalf("refused %v", refused)
			}
			if !refused {
				wantAddrs(t, peerAt(t, tr, "10.0.0.2", 2, 2).announce(), c.want)
			}
		})
	}
}

// A seeder beside the tracker announces over loopback; other hosts must get an
// address that they can dial.
func TestLoopbackPeerSeenFromElsewhere(t *testing.T) {
	tr := New(Config{})
	peerAt(t, tr, "127.0.0.1", 1, 7071).announce()
	wantAddrs(t, peerAt(t, tr, "127.0.0.1", 2, 7072).announce(), "127.0.0.1:7071")
	far := peerAt(t, tr, "10.0.0.2", 3, 7073)
	wantAddrs(t, far.announce()) // where it reached us is not known
	far.local = "10.0.0.1"
	wantAddrs(t, far.announce(), "10.0.0.1:7071", "10.0.0.1:7072")
	near := peerAt(t, tr, "10.0.0.1", 4, 7072) // the second one, by another address
	near.local = "10.0.0.1"
	wantAddrs(t, near.announce(), "10.0.0.1:7071", "10.0.0.2:7073")
	six := peerAt(t, tr, "fd00::2", 5, 5)
	six.local = "fd00::1"
	wantAddrs(t, six.with("compact", "0").announce(),
		"[fd00::1]:7071", "[fd00::1]:7072", "10.0.0.1:7072", "10.0.0.2:7073")
}

func TestScrape(t *testing.T) {
	tr := New(Config{Allow: func(h [20]byte) bool { return h[0] != 'z' }})
	c := peerAt(t, tr, "10.0.0.1", 1, 1)
	c.with("left", "0", "event", "completed").announce()
	peerAt(t, tr, "10.0.0.2", 2, 2).with("left", "").announce()
	q := "/x/scrape?info_hash=" + strings.Repeat("z", 20) + "&info_hash=" + hash(1) + "&info_hash=" + hash(0) + "&info_hash=" + hash(1)
	answer := c.get(q)
	files := answer["files"].(map[string]any)
	if len(answer) != 1 || len(files) != 2 {
		t.Fatalf("scrape %v", answer)
	}
	wantCounts(t, files[hash(0)].(map[string]any), 1, 1, 1)
	wantCounts(t, files[hash(1)].(map[string]any), 0, 0, 0)
	if len(tr.swarms) != 1 {
		t.Error("a scrape made a swarm")
	}
}

func TestSnapshot(t *testing.T) {
	c := newClock()
	tr := New(Config{Now: c.now})
	b := peerAt(t, tr, "10.0.0.2", 2, 2).with("uploaded", "10", "downloaded", "20", "left", "30")
	b.announce()
	c.advance(time.Second)
	peerAt(t, tr, "10.0.0.1", 1, 1).with("left", "0", "event", "completed").announce()
	b.with("info_hash", hash(1)).announce()
	got := tr.Snapshot()
	if len(got) != 2 || string(got[1].Infohash[:]) != hash(1) || got[0].Downloaded != 1 ||
		got[0].Complete != 1 || got[0].Incomplete != 1 || len(got[0].Peers) != 2 {
		t.Fatalf("snapshot %+v", got)
	}
	want := Peer{Addr: netip.MustParseAddrPort("10.0.0.2:2"), Left: 30, Uploaded: 10, Downloaded: 20, LastSeen: newClock().t}
	copy(want.ID[:], id(2))
	if got[0].Peers[1] != want {
		t.Errorf("peer %+v, want %+v", got[0].Peers[1], want)
	}
}

// The seed that Config names is told to who lacks something, and to nobody
// else; it has no peer id to give.
func TestSeedOfConfig(t *testing.T) {
	seed := netip.MustParseAddrPort("192.0.2.1:7071")
	tr := New(Config{Seed: func(*http.Request, [20]byte) (netip.AddrPort, bool) { return seed, true }})
	ask := func(query string) string {
		r := httptest.NewRequest(http.MethodGet, "/announce?info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=bbbbbbbbbbbbbbbbbbbb&port=7072"+query, nil)
		w := httptest.NewRecorder()
		tr.Announce(w, r)
		return w.Body.String()
	}
	const compact = "\xc0\x00\x02\x01\x1b\x9f"
	if got := ask("&left=5&compact=1"); !strings.Contains(got, compact) || !strings.Contains(got, "8:completei1e") {
		t.Errorf("a leecher is told %q", got)
	}
	if got := ask("&left=5&compact=0"); !strings.Contains(got, "9:192.0.2.1") || strings.Contains(got, "peer id") {
		t.Errorf("a leecher is told %q", got)
	}
	for _, query := range []string{"&left=0&compact=1", "&left=5&compact=1&event=stopped"} {
		if got := ask(query); strings.Contains(got, compact) {
			t.Errorf("%s is told %q", query, got)
		}
	}
}
