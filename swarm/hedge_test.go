package swarm

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/torrent"

	"dcfs/cache/piece"
)

func TestHedgeKnowsWhoWaits(t *testing.T) {
	h, now := newHedge(), time.Now()
	h.demanded(piece.Range{First: 3, End: 5}, now)
	h.demanded(piece.Range{First: 4, End: 6}, now.Add(time.Second)) // 4 has waited longer
	if late, any := h.since(now.Add(time.Millisecond)); len(late) != 2 || !any {
		t.Errorf("late %v, %t", late, any)
	}
	h.relaxed(piece.Range{First: 0, End: 5})
	if late, any := h.since(now.Add(time.Millisecond)); len(late) != 0 || !any {
		t.Errorf("late %v, %t", late, any)
	}
	h.relaxed(piece.Range{First: 5, End: 6})
	if _, any := h.since(now); any {
		t.Error("somebody waits")
	}
}

func TestHedgeLetsPeersRest(t *testing.T) {
	h, now, p := newHedge(), time.Now(), netip.MustParseAddrPort("10.0.0.1:1")
	if h.rests(p, now) {
		t.Error("it rests before it was late")
	}
	for _, want := range []time.Duration{firstRest, 2 * firstRest, 4 * firstRest} {
		if got := h.punish(p, now); got != want || !h.rests(p, now.Add(want-1)) || h.rests(p, now.Add(want)) {
			t.Errorf("it rests for %v, want %v", got, want)
		}
	}
	for range 20 {
		h.punish(p, now)
	}
	if h.rests(p, now.Add(longestRest)) {
		t.Error("it rests for ever")
	}
	for i := range 3 * maxResting {
		h.punish(netip.AddrPortFrom(p.Addr(), uint16(i)), now)
	}
	if len(h.resting) > maxResting {
		t.Errorf("%d peers are remembered", len(h.resting))
	}
}

// Late is who was asked long ago and says nothing; not who sends other blocks,
// and nobody while the piece comes.
func TestLatePeers(t *testing.T) {
	start, patience := time.Now(), time.Second
	frozen, busy, fresh := &torrent.Peer{}, &torrent.Peer{}, &torrent.Peer{}
	a := newAsks()
	a.asked(frozen, "f", blockOf(1, 0), start)
	a.asked(busy, "b", blockOf(1, requestLength), start)
	a.asked(busy, "b", blockOf(9, 0), start)
	now := start.Add(1500 * time.Millisecond)
	a.asked(fresh, "n", blockOf(1, 2*requestLength), now.Add(-time.Millisecond))
	a.answered(busy, blockOf(9, 0), now.Add(-time.Millisecond))
	a.ended(busy, blockOf(9, 0), now)
	if got := a.late(1, now, patience); len(got) != 1 || got[0] != frozen {
		t.Errorf("late %v", got)
	}
	if !a.silent(frozen, now, patience) || a.silent(busy, now, patience) || a.silent(fresh, now, patience) || a.silent(&torrent.Peer{}, now, patience) {
		t.Error("silent is only who has a request and sends nothing")
	}
	if got := a.late(1, start.Add(patience-1), patience); len(got) != 0 {
		t.Errorf("late before its time: %v", got)
	}
	a.answered(busy, blockOf(1, requestLength), now) // the piece comes
	if got := a.late(1, now, patience); len(got) != 0 {
		t.Errorf("late although the piece comes: %v", got)
	}
	if a.patience() != 2*1500*time.Millisecond || newAsks().patience() != minPatience {
		t.Errorf("patience %v", a.patience())
	}
}

// tarpit passes a connection on to a peer until it is told to hold what that
// peer says.
type tarpit struct {
	ln   net.Listener
	hold chan struct{}
	once sync.Once
}

func newTarpit(t *testing.T, target string) *tarpit {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tarpit{ln: ln, hold: make(chan struct{})}
	var tasks sync.WaitGroup
	end := make(chan struct{})
	t.Cleanup(func() { close(end); ln.Close(); tasks.Wait() })
	tasks.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			tasks.Go(func() { <-end; in.Close(); out.Close() })
			tasks.Go(func() { _, _ = io.Copy(out, in); out.Close() })
			tasks.Go(func() { p.pass(in, out, end) })
		}
	})
	return p
}

func (p *tarpit) pass(in, out net.Conn, end chan struct{}) {
	defer in.Close()
	b := make([]byte, 1<<16)
	for {
		n, err := out.Read(b)
		if err != nil {
			return
		}
		select {
		case <-p.hold: // and it still reads, as a peer whose disk hangs
			<-end
			return
		default:
		}
		if _, err := in.Write(b[:n]); err != nil {
			return
		}
	}
}

// A peer that takes requests and answers none of them, while another has
// nothing to do: the reader gets its pieces from that one, and soon.
func TestReaderDoesNotWaitForALatePeer(t *testing.T) {
	for range 4 { // it is chance whom the library asks
		readerDoesNotWait(t)
	}
}

func readerDoesNotWait(t *testing.T) {
	t.Helper()
	rel := newRelease(t, 64*requestLength, requestLength) // a block is a piece
	good := newHost(t, rel, true, NodeConfig{}).joinPeers()
	other := newHost(t, rel, true, NodeConfig{}).joinPeers()
	pit := newTarpit(t, other.node.Addr())
	h := newHost(t, rel, false, NodeConfig{})
	spec := h.spec()
	spec.Peers = []string{good.node.Addr(), pit.ln.Addr().String()}
	s, err := h.node.Join(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	h.swarm = s
	h.store.Attach(s)
	down := func() (n int64) {
		for _, p := range s.Peers() {
			if p.Addr == pit.ln.Addr().String() {
				n = p.Down
			}
		}
		return n
	}
	next := piece.Index(0)
	read := func() time.Duration {
		began, p := time.Now(), make([]byte, requestLength)
		if _, err := h.store.ReadAt(t.Context(), p, rel.layout.Offset(next)); err != nil || !bytes.Equal(p, rel.piece(next)) {
			t.Fatalf("piece %d: %v", next, err)
		}
		next++
		return time.Since(began)
	}
	read() // it dials when somebody wants something
	eventually(t, func() bool { return len(s.Peers()) == 2 }, func() string { return s.Explain(0) })
	// The library lets others take a block over from who was useful last only
	// when they have just been useful themselves: so it is the pit's turn.
	for before := down(); down() == before && next < 40; before = down() {
		read()
	}
	pit.once.Do(func() { close(pit.hold) })
	var longest time.Duration
	for range 20 {
		longest = max(longest, read())
	}
	t.Logf("the longest of 20 reads took %v", longest)
	if longest > stallAfter/2 {
		t.Errorf("a reader waited %v for a peer that says nothing", longest)
	}
}
