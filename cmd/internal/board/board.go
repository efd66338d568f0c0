// Package board is what a person looks at while releases travel: the releases,
// every host of each, what waits and what happened, as one page and as JSON.
// An origin shows what its hosts report to it and what its tracker knows, a
// node shows itself and its peers.
//
// Everything that comes from a host is its own word: it is clipped, shown as
// text, and decides nothing. It must never hold more hosts, bytes or events
// than its bounds, nor take longer to answer because more people look.
package board

import (
	"net/netip"
	"sync"
	"time"
)

// Config says what a board shows.
type Config struct {
	Kind    string // KindOrigin or KindNode
	Name    string // of this host
	Program string // version of this program

	// Releases lists the releases, with what the origin has sent of each.
	// Called at most once a second.
	Releases func() []Item
	// Find tells whether an info-hash, as 40 hex digits, is one of them. Called
	// for every report, so it must be quick.
	Find func(infohash string) (Base, bool)
	// Others lists the hosts that do not report, by info-hash: the peers that
	// the tracker or the swarm knows. Those that report as well are left out by
	// their address. Called at most once a second; nil for nobody.
	Others func() map[string][]Other

	Hosts   int // that may report; 0 for 20,000
	PerAddr int // of them, from one address; 0 for 256

	Now func() time.Time // nil for time.Now
}

// Item is a release of Config.Releases.
type Item struct {
	Base
	Sent int64 // bytes that were sent of it to peers so far
}

// Other is a host that does not report.
type Other struct {
	Addr   netip.AddrPort
	Client string
	Have   int64     // bytes
	Seen   time.Time // zero for now
	Cells  []byte    // as in control.Report, if that is known
	Whole  bool
}

// Kinds of boards.
const (
	KindOrigin = "origin"
	KindNode   = "node"
)

const (
	defaultHosts   = 20_000
	defaultPerAddr = 256
)

// Board collects and shows. Its methods may be called concurrently. It has no
// goroutine: what has to be looked at from time to time is, when somebody
// reports or asks.
type Board struct {
	cfg     Config
	started time.Time
	events  events

	mu      sync.Mutex
	hosts   map[hostKey]*entry
	perAddr map[netip.Addr]int
	swept   time.Time
	sent    map[string]meter // by info-hash
	known   map[string]bool  // releases that were seen, by info-hash; nil before the first look

	view   sync.Mutex // one snapshot is made at a time
	last   *snapshot
	stock  map[string]map[string]string // clients by info-hash and address; see regard
	posted chan struct{}                // slots for reports that are being read
}

// meter turns a counter into a rate.
type meter struct {
	at    time.Time
	count int64
	rate  int64
}

func (m meter) next(now time.Time, count int64) meter {
	if m.at.IsZero() || count < m.count {
		return meter{at: now, count: count}
	}
	span := now.Sub(m.at)
	if span < 500*time.Millisecond {
		return m
	}
	return meter{at: now, count: count, rate: int64(float64(count-m.count) / span.Seconds())}
}

// New returns a board that nobody has reported to.
func New(cfg Config) *Board {
	if cfg.Hosts <= 0 {
		cfg.Hosts = defaultHosts
	}
	if cfg.PerAddr <= 0 {
		cfg.PerAddr = defaultPerAddr
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Board{
		cfg: cfg, started: cfg.Now(), hosts: make(map[hostKey]*entry), perAddr: make(map[netip.Addr]int),
		sent: make(map[string]meter), stock: make(map[string]map[string]string), posted: make(chan struct{}, maxPosted),
	}
}

// Look notices releases that are new and hosts that have fallen silent. It is
// cheap and may be called every second; answering does it, too.
func (b *Board) Look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(b.cfg.Now())
}

// notice makes an event of each release that was not there before.
func (b *Board) notice(items []Item, now time.Time) {
	first := b.known == nil
	if first {
		b.known = make(map[string]bool)
	}
	for _, it := range items {
		if !b.known[it.Infohash] && !first {
			b.events.add(Event{Time: now, Kind: "published", Version: it.Version})
		}
		b.known[it.Infohash] = true
	}
}
