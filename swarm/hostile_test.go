package swarm

import (
	"bytes"
	"context"
	"crypto/sha1"
	"io"
	"net/netip"
	"sync"
	"testing"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"

	"dcfs/cache"
	"dcfs/cache/piece"
)

// A seed that lies cannot make a wrong byte readable, nor keep the release from
// coming whole out of honest seeds. It has an address of its own, because the
// library bans addresses.
func TestSeedThatLies(t *testing.T) {
	rel := newRelease(t, 8<<20, 256<<10)
	liar, err := NewNode(NodeConfig{Listen: "127.0.0.2:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer liar.Close()
	spec := Spec{InfoHash: rel.hash, Info: rel.info, Total: rel.layout.Total, Store: lyingStore{}}
	lie, err := liar.Join(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer lie.Leave(context.Background())
	h := newHost(t, rel, false, NodeConfig{Listen: "127.0.0.4:0"})
	spec = h.spec()
	spec.Peers = []string{liar.Addr()}
	h.join(spec)
	eventually(t, func() bool { return h.swarm.Stats().Received > 0 }, func() string { return "the liar sends nothing" })
	honest := newHost(t, rel, true, NodeConfig{Listen: "127.0.0.3:0"})
	spec = honest.spec()
	spec.Peers = []string{h.node.Addr()}
	honest.join(spec)
	h.mustComplete()
	h.mustHaveBanned(lie)
}

// An honest and a lying seed from the beginning: pieces get blocks of both.
func TestSeedThatLiesBesideAnHonestOne(t *testing.T) {
	rel := newRelease(t, 8<<20, 256<<10)
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
	honest := newHost(t, rel, true, NodeConfig{Listen: "127.0.0.3:0"}).joinPeers()
	h := newHost(t, rel, false, NodeConfig{Listen: "127.0.0.4:0"})
	spec := h.spec()
	spec.Peers = []string{liar.Addr(), honest.node.Addr()}
	h.join(spec)
	h.mustComplete()
	h.mustHaveBanned(lie)
}

// mustHaveBanned checks that nobody but the liar was banned, and that one if
// any of its blocks was taken.
func (h *host) mustHaveBanned(lie *Swarm) {
	h.t.Helper()
	sent, banned := lie.Stats().Sent, h.node.client.BadPeerIPs() // in two forms each
	for _, ip := range banned {
		if netip.MustParseAddr(ip).Unmap().String() != "127.0.0.2" {
			h.t.Errorf("%v was banned, and was honest", ip)
		}
	}
	if (sent > 0) != (len(banned) > 0) {
		h.t.Errorf("banned %v; the liar sent %d bytes", banned, sent)
	}
	if st := h.swarm.Stats(); st.Received > 3*h.rel.layout.Total {
		h.t.Errorf("%d bytes came for %d: the liar is believed again and again", st.Received, h.rel.layout.Total)
	}
}

// A piece that failed is shown to the library, which then can tell who lied.
func TestFailedPieceIsCompared(t *testing.T) {
	rel := newRelease(t, 100, 40)
	h := newHost(t, rel, false, NodeConfig{})
	var info metainfo.Info
	if err := bencode.Unmarshal(rel.info, &info); err != nil {
		t.Fatal(err)
	}
	c := newStoreClient(h.store, nil)
	p := info.Piece(2)
	write := func(b []byte) {
		t.Helper()
		if n, err := c.piece(p).WriteAt(b, 0); n != 20 || err != nil {
			t.Fatal(n, err)
		}
	}
	write(make([]byte, 20))
	if sum, err := c.piece(p).(storage.SelfHashing).SelfHash(); err != nil || sum == rel.sums[2] {
		t.Fatalf("%x, %v", sum, err)
	}
	for _, b := range [][]byte{make([]byte, 20), rel.piece(2)} {
		if err := c.piece(p).MarkNotComplete(); err != nil {
			t.Fatal(err)
		}
		if _, ok := c.piece(p).(storage.SelfHashing); ok {
			t.Fatal("a piece that failed hashes itself again")
		}
		write(b)
		var shown bytes.Buffer
		n, err := c.piece(p).(io.WriterTo).WriteTo(&shown)
		right := bytes.Equal(b, rel.piece(2))
		if err != nil || right != bytes.Equal(shown.Bytes(), rel.piece(2)) || !right && n != 0 {
			t.Fatalf("right %v: %d bytes were shown, %v", right, n, err)
		}
	}
	if err := c.piece(p).MarkComplete(); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.piece(p).(storage.SelfHashing); !ok {
		t.Error("a piece that is right is shown for ever")
	}
}

// forgetful is a store that gives up each piece once, at the worst moment: when
// the library was told that its hash is right, and before it says so.
type forgetful struct {
	*cache.Store
	mu     sync.Mutex
	gone   map[piece.Index]bool // given up, and not come again
	before map[piece.Index]bool // was given up once
}

func (f *forgetful) Verify(i piece.Index) ([sha1.Size]byte, error) {
	sum, err := f.Store.Verify(i)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone[i] = !f.before[i]
	f.before[i] = true
	return sum, err
}

func (f *forgetful) Have(i piece.Index) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.gone[i] && f.Store.Have(i)
}

func (f *forgetful) all() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, gone := range f.gone {
		if gone {
			return false
		}
	}
	return len(f.gone) > 0
}

func TestPieceGivenUpWhileItIsMarked(t *testing.T) {
	rel := newRelease(t, 1<<20, 64<<10)
	seed := newHost(t, rel, true, NodeConfig{}).joinPeers()
	h := newHost(t, rel, false, NodeConfig{})
	store := &forgetful{Store: h.store, gone: make(map[piece.Index]bool), before: make(map[piece.Index]bool)}
	spec := h.spec()
	spec.Store, spec.Peers = store, []string{seed.node.Addr()}
	h.join(spec)
	h.mustComplete()
	eventually(t, store.all, func() string { return "the library takes pieces for complete that the store gave up" })
}

// A piece whose copy on disk is damaged comes again from peers, also when it is
// a peer that notices.
func TestDamagedClaim(t *testing.T) {
	rel := newRelease(t, 1<<20, 64<<10)
	h := newHost(t, rel, true, NodeConfig{})
	h.disk.data = append([]byte(nil), rel.data...)
	h.disk.data[5] ^= 1
	h.disk.data[500_000] ^= 1
	seed := newHost(t, rel, true, NodeConfig{}).joinPeers()
	leecher := newHost(t, rel, false, NodeConfig{})
	h.joinPeers(seed)
	leecher.joinPeers(h)
	leecher.mustComplete()
	h.store.Scrub(t.Context())
	h.mustComplete()
}
