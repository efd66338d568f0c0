package swarm

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
	"go.uber.org/goleak"

	"dcfs/cache"
	"dcfs/cache/piece"
	"dcfs/swarm/gate"
)

// patience bounds every wait of these tests. It is for hanging, not for timing.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, libraryLeaks...)
}

// libraryLeaks are goroutines that the library keeps.
var libraryLeaks = []goleak.Option{}

// release is a payload stream with its info dictionary.
type release struct {
	layout piece.Layout
	data   []byte
	sums   [][sha1.Size]byte
	info   []byte
	hash   [sha1.Size]byte
}

func newRelease(t testing.TB, total, length int64) *release {
	t.Helper()
	r := &release{layout: piece.Layout{Total: total, Length: length}, data: make([]byte, total)}
	rng := rand.NewChaCha8([32]byte{1, byte(total), byte(length)})
	_, _ = rng.Read(r.data)
	private := true
	info := metainfo.Info{PieceLength: length, Name: "synthetic", Private: &private}
	info.Files = []metainfo.FileInfo{{Length: total / 3, Path: []string{"a"}}, {Length: total - total/3, Path: []string{"b", "c"}}}
	for i := range piece.Index(r.layout.Count()) {
		sum := sha1.Sum(r.piece(i))
		r.sums, info.Pieces = append(r.sums, sum), append(info.Pieces, sum[:]...)
	}
	var err error
	if r.info, err = bencode.Marshal(info); err != nil {
		t.Fatal(err)
	}
	r.hash = sha1.Sum(r.info)
	return r
}

func (r *release) piece(i piece.Index) []byte {
	return r.data[r.layout.Offset(i) : r.layout.Offset(i)+r.layout.Size(i)]
}

func (r *release) all() piece.Range { return piece.Range{End: piece.Index(r.layout.Count())} }

// ram is a cache.Backing in memory. A seed's may share the release's bytes.
type ram struct {
	mu   sync.RWMutex
	data []byte
}

func (r *ram) ReadAt(p []byte, off int64) (int, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if off >= int64(len(r.data)) {
		return 0, io.EOF
	}
	return copy(p, r.data[off:]), nil
}

func (r *ram) WriteAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return copy(r.data[off:], p), nil
}

func (r *ram) SaveHave([]byte) error { return nil }

// host is a node with a store of one release.
type host struct {
	t     testing.TB
	rel   *release
	disk  *ram
	store *cache.Store
	node  *Node
	swarm *Swarm
}

// rated is a gate for everybody, with limits in bytes a second; 0 for none.
func rated(up, down int64) *gate.Gate {
	return &gate.Gate{Rates: gate.Rates{Up: []*gate.Limit{gate.NewLimit(up)}, Down: []*gate.Limit{gate.NewLimit(down)}}}
}

// newHost makes a host that listens on addr; a seed claims all pieces.
func newHost(t testing.TB, rel *release, seed bool, cfg NodeConfig) *host {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(alarm{slog.DiscardHandler, t})
	}
	node, err := NewNode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	memory, err := cache.NewMemory(max(64<<20, rel.layout.Total/4))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, rel: rel, node: node, disk: &ram{data: rel.data}}
	claimed := piece.NewSet(rel.layout.Count())
	if seed {
		for i := range rel.all().End {
			claimed.Add(i)
		}
	} else {
		h.disk.data = make([]byte, len(rel.data))
	}
	h.store, err = cache.New(cache.Config{
		Layout: rel.layout, Hash: func(i piece.Index) [20]byte { return rel.sums[i] },
		Backing: h.disk, Memory: memory, Claimed: claimed, OnLost: h.onLost,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.store.Run(ctx) }()
	t.Cleanup(func() {
		h.leave()
		if err := node.Close(); err != nil {
			t.Errorf("closing a node: %v", err)
		}
		h.store.Close()
		cancel()
		<-done
		memory.Close()
	})
	return h
}

// alarm fails a test whose hosts had to be woken: the watchdog is for what nobody
// knows of.
type alarm struct {
	slog.Handler
	t testing.TB
}

func (alarm) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (a alarm) Handle(_ context.Context, r slog.Record) error {
	if r.Message == fellSilent {
		a.t.Error(r.Message)
	}
	return nil
}

func (h *host) onLost(i piece.Index, _ error) {
	if h.swarm != nil {
		h.swarm.Lost(i)
	}
}

func (h *host) spec() Spec {
	return Spec{InfoHash: h.rel.hash, Info: h.rel.info, Total: h.rel.layout.Total, Store: h.store}
}

// join enters the swarm and wants everything in the background.
func (h *host) join(spec Spec) *host {
	h.t.Helper()
	s, err := h.node.Join(h.t.Context(), spec)
	if err != nil {
		h.t.Fatal(err)
	}
	h.swarm = s
	h.store.Attach(s)
	s.Prefetch(h.rel.all(), piece.Background)
	return h
}

// joinPeers joins with the addresses of other hosts.
func (h *host) joinPeers(peers ...*host) *host {
	h.t.Helper()
	spec := h.spec()
	for _, p := range peers {
		spec.Peers = append(spec.Peers, p.node.Addr())
	}
	return h.join(spec)
}

func (h *host) leave() {
	if h.swarm != nil {
		h.store.Attach(nil)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		h.swarm.Leave(ctx)
	}
}

// mustComplete waits until the release is whole, and compares its bytes.
func (h *host) mustComplete() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	select {
	case <-h.store.Complete():
	case <-ctx.Done():
		h.t.Fatalf("not complete: %+v, %+v, peers %+v", h.store.Stats(), h.swarm.Stats(), h.swarm.Peers())
	}
	got := make([]byte, len(h.rel.data))
	if _, err := h.store.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, h.rel.data) {
		h.t.Fatalf("the bytes differ or cannot be read: %v", err)
	}
	if err := h.store.Flush(ctx); err != nil || !bytes.Equal(h.disk.data, h.rel.data) {
		h.t.Fatalf("the disk differs: %v", err)
	}
}

// eventually polls for what no channel tells.
func eventually(t testing.TB, what func() bool, say func() string) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !what() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("in vain: " + say())
		}
	}
}

// lyingStore says that it has every piece, and gives wrong bytes.
type lyingStore struct{}

func (lyingStore) WriteChunk(piece.Index, []byte, int64) error { return nil }
func (lyingStore) ReadChunk(_ piece.Index, p []byte, _ int64) error {
	for i := range p {
		p[i] = 0x55
	}
	return nil
}
func (lyingStore) Verify(piece.Index) ([20]byte, error) { return [20]byte{}, errors.New("never") }
func (lyingStore) Drop(piece.Index)                     {}
func (lyingStore) Have(piece.Index) bool                { return true }
