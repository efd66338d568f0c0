package origin

import (
	"context"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dcfs/cache"
	"dcfs/cache/piece"
	"dcfs/cmd/internal/catalog"
	"dcfs/fs/durable"
	"dcfs/fs/materialise"
	"dcfs/swarm"
	"dcfs/swarm/metainfo"
)

// rescan is how often the library is looked through for releases that a
// publish on this host left there.
const rescan = time.Second

// shelf is the releases that are being seeded, by version.
type shelf struct {
	lib    *Library
	node   *swarm.Node
	memory *cache.Memory
	log    *slog.Logger

	mu     sync.Mutex
	seeded map[string]*seeded
	byHash map[[20]byte]*seeded
	failed map[string]bool // logged once, and not mapped again

	damaged atomic.Int64 // pieces
}

// seeded is one release in the swarm.
type seeded struct {
	version string
	mi      *metainfo.Metainfo
	raw     []byte // the metainfo as stored
	since   time.Time
	about   catalog.Release // what the index tells of it
	webSeed atomic.Int64    // bytes that the web seed has sent
	*exchange
}

// exchange is the origin's part in one swarm. Versions that are the same to
// BitTorrent share it: the VERSION is in the statement that is signed, and only
// its last segment in what is hashed.
type exchange struct {
	store *cache.Store
	disk  interface{ Close() error }
	swarm *swarm.Swarm
}

// standing is a release that is whole: there is nothing to record.
type standing struct{ *materialise.Dest }

func (standing) SaveHave([]byte) error { return nil }

func newShelf(lib *Library, node *swarm.Node, memory *cache.Memory, log *slog.Logger) *shelf {
	return &shelf{
		lib: lib, node: node, memory: memory, log: log,
		seeded: make(map[string]*seeded), byHash: make(map[[20]byte]*seeded), failed: make(map[string]bool),
	}
}

// run keeps the shelf equal to the library until ctx ends, then leaves all
// swarms. After each look it calls beat, if that is set.
func (s *shelf) run(ctx context.Context, beat func()) error {
	tick := time.NewTicker(rescan)
	defer tick.Stop()
	defer s.close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.scan(ctx); err != nil {
				s.log.Warn("looking for new releases", "cause", err)
			}
			if beat != nil {
				beat()
			}
		}
	}
}

// scan starts to seed what the library holds and the shelf does not.
func (s *shelf) scan(ctx context.Context) error {
	versions, err := s.lib.Versions()
	if err != nil {
		return err
	}
	for _, v := range versions {
		if _, err := s.find(ctx, v); err != nil && ctx.Err() == nil {
			s.noteFailure(v, err)
		}
	}
	return nil
}

func (s *shelf) noteFailure(version string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.failed[version] {
		s.failed[version] = true
		s.log.Error("a stored release cannot be served", "version", version, "cause", err)
	}
}

// find returns a release, starting to seed it if it is new.
func (s *shelf) find(ctx context.Context, version string) (*seeded, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.seeded[version]; r != nil {
		return r, nil
	}
	r, err := s.open(ctx, version)
	if err != nil {
		return nil, err
	}
	s.seeded[version] = r
	if s.byHash[r.mi.InfoHash] == nil {
		s.byHash[r.mi.InfoHash] = r
	}
	delete(s.failed, version)
	s.log.Info("seeding", "version", version, "infohash", hexHash(r.mi.InfoHash), "bytes", r.mi.Layout.Total)
	return r, nil
}

// largeMetainfo is the size in bytes from which metainfo does not stay on the
// heap: some 50,000 files. The kernel can take its memory back.
const largeMetainfo = 4 << 20

// open begins to seed a release. All pieces are claimed: each is hashed before
// it is first sent.
func (s *shelf) open(ctx context.Context, version string) (*seeded, error) {
	raw, err := s.lib.read(version)
	if err != nil {
		return nil, err
	}
	// A mapping is there for good, and what failed is tried again and again.
	if len(raw) >= largeMetainfo && !s.failed[version] {
		defer debug.FreeOSMemory()
		if mapped, err := durable.Map(s.lib.dir, raw); err == nil {
			raw = mapped // else it stays on the heap
			defer durable.Unload(raw)
		}
	}
	mi, err := metainfo.Parse(raw)
	if err != nil {
		return nil, err
	}
	r := &seeded{version: version, mi: mi, raw: raw, since: time.Now(), about: describe(version, mi)}
	if other := s.byHash[mi.InfoHash]; other != nil {
		r.exchange = other.exchange
		return r, nil
	}
	r.exchange, err = s.join(ctx, version, mi)
	return r, err
}

// join enters the swarm of a release.
func (s *shelf) join(ctx context.Context, version string, mi *metainfo.Metainfo) (*exchange, error) {
	disk, err := materialise.OpenDest(s.lib.Data(version), mi.Tree)
	if err != nil {
		return nil, err
	}
	all := piece.NewSet(mi.Layout.Count())
	for i := range piece.Index(mi.Layout.Count()) {
		all.Add(i)
	}
	e := &exchange{disk: disk}
	e.store, err = cache.New(cache.Config{
		Layout: mi.Layout, Hash: mi.Pieces.Hash, Backing: standing{disk}, Memory: s.memory, Claimed: all, Log: s.log,
		OnLost: func(i piece.Index, why error) {
			s.damaged.Add(1)
			s.log.Error("the origin's copy is damaged; publish it again", "version", version, "piece", i, "cause", why)
		},
	})
	if err == nil {
		e.swarm, err = s.node.Join(ctx, swarm.Spec{InfoHash: mi.InfoHash, Info: mi.Info, Total: mi.Layout.Total, Store: e.store, Steer: true})
	}
	if err != nil {
		disk.Close()
		return nil, err
	}
	return e, nil
}

// known returns the release with an info-hash.
func (s *shelf) known(infoHash [20]byte) *seeded {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byHash[infoHash]
}

// serves reports whether an info-hash is one of the origin's.
func (s *shelf) serves(infoHash [20]byte) bool {
	return s.known(infoHash) != nil
}

// failures counts the stored releases that cannot be served.
func (s *shelf) failures() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.failed)
}

// all lists the releases that are served, in no order.
func (s *shelf) all() []*seeded {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*seeded, 0, len(s.seeded))
	for _, r := range s.seeded {
		out = append(out, r)
	}
	return out
}

// swarms lists one release of each swarm, in no order.
func (s *shelf) swarms() []*seeded {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.byHash))
}

func (s *shelf) close() {
	for _, r := range s.swarms() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		r.swarm.Leave(ctx)
		cancel()
		r.store.Close()
		if err := r.disk.Close(); err != nil {
			s.log.Warn("closing a release", "version", r.version, "cause", err)
		}
	}
}
