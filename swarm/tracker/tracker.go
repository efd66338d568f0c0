// Package tracker is an HTTP BitTorrent tracker: announce (BEP 3) and scrape
// (BEP 48), with compact answers (BEP 23) and IPv6 peers (BEP 7). It tells the
// hosts that share a release about each other.
//
// It must never put the key "failure reason" into a good answer (stock clients
// take its presence for an error), never believe an address that a client
// claims for itself unless told to, never hold more than its configured number
// of swarms and peers, and never touch a disk or dial anybody.
package tracker

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path"
	"sync"
	"sync/atomic"
	"time"
)

// Config sets the tracker's rules. The zero value of a field means the default
// named beside it.
type Config struct {
	// Allow says whether the tracker serves an infohash. It is called once per
	// announce and once per scraped infohash, from many goroutines, and must
	// not block. nil serves every infohash, up to MaxSwarms.
	Allow func(infohash [20]byte) bool

	Interval    time.Duration // 15 s; how often a client should announce
	MinInterval time.Duration // 5 s; how often it may; told to clients, not enforced
	Expiry      time.Duration // 120 s; a peer not heard of for so long is forgotten

	MaxSwarms        int // 1024
	MaxPeersPerSwarm int // 20,000
	MaxPeers         int // 200,000 over all swarms, about 60 MB

	// TrustIPParam believes the parameters ip, ipv4 and ipv6 of every client.
	// Without it they count only when the remote address is loopback, for
	// otherwise any client could send a whole swarm to dial a third host. Mind
	// that behind a reverse proxy on this host every client is loopback.
	TrustIPParam bool

	// Seed names a seed of the infohash that does not announce itself, at the
	// address where the asker of r can reach it. It is told to every peer that
	// lacks something, beside the others. nil, or false, names none.
	Seed func(r *http.Request, infohash [20]byte) (netip.AddrPort, bool)

	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Tracker is the service. Use New; all methods may be called concurrently. It
// starts no goroutine: what has expired is removed while requests are served.
type Tracker struct {
	cfg   Config
	peers atomic.Int64 // over all swarms

	mu        sync.RWMutex // guards swarms and lastSweep; taken before a swarm's own lock
	swarms    map[[20]byte]*swarm
	lastSweep time.Time
}

// New returns a tracker with no swarms.
func New(cfg Config) *Tracker {
	orDefault(&cfg.Interval, 15*time.Second)
	orDefault(&cfg.MinInterval, 5*time.Second)
	orDefault(&cfg.Expiry, 120*time.Second)
	orDefault(&cfg.MaxSwarms, 1024)
	orDefault(&cfg.MaxPeersPerSwarm, 20_000)
	orDefault(&cfg.MaxPeers, 200_000)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Allow == nil {
		cfg.Allow = func([20]byte) bool { return true }
	}
	return &Tracker{cfg: cfg, swarms: map[[20]byte]*swarm{}, lastSweep: cfg.Now()}
}

func orDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// ServeHTTP serves Announce and Scrape by the last element of the URL's path,
// which is how clients derive one address from the other (BEP 48).
func (t *Tracker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path.Base(r.URL.Path) {
	case "announce":
		t.Announce(w, r)
	case "scrape":
		t.Scrape(w, r)
	default:
		http.NotFound(w, r)
	}
}

// Announce is the handler of GET /announce (BEP 3). A refused announce is
// answered with status 200 and a dictionary that holds only "failure reason".
func (t *Tracker) Announce(w http.ResponseWriter, r *http.Request) {
	serve(w, r, t.announce)
}

// Scrape is the handler of GET /scrape (BEP 48). The query must name the
// infohashes, at most 100; those that the tracker does not serve are left out
// of the answer.
func (t *Tracker) Scrape(w http.ResponseWriter, r *http.Request) {
	serve(w, r, t.scrape)
}

// maxQuery bounds the query string in bytes: room for 100 scraped infohashes
// or for ten times what any client announces.
const maxQuery = 8 << 10

func serve(w http.ResponseWriter, r *http.Request, answer func(*http.Request) ([]byte, error)) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "a tracker answers GET only", http.StatusMethodNotAllowed)
		return
	}
	body, err := []byte(nil), error(refusal("the query is too long"))
	if len(r.URL.RawQuery) <= maxQuery {
		body, err = answer(r)
	}
	if err != nil {
		body = appendFailure(nil, err.Error())
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // a client that went away needs no answer
}

// refusal is the reason given to a client whose request is not served. It
// never quotes what the client sent.
type refusal string

// Error returns the reason.
func (r refusal) Error() string { return string(r) }

func (t *Tracker) announce(r *http.Request) ([]byte, error) {
	a, err := parseAnnounce(r, t.cfg.TrustIPParam)
	if err != nil {
		return nil, err
	}
	if !t.cfg.Allow(a.infohash) {
		return nil, refusal("this tracker does not serve that info_hash; is the release published here?")
	}
	now := t.cfg.Now()
	t.sweepIfDue(now)
	res, err := t.apply(a, now)
	if err != nil {
		return nil, err
	}
	if a.left != 0 && a.event != eventStopped && t.cfg.Seed != nil {
		if addr, ok := t.cfg.Seed(r, a.infohash); ok {
			res.peers = append(res.peers, contact{addr: addr})
			res.counts.complete++
		}
	}
	return t.appendAnnounce(nil, a, res), nil
}

// apply updates the announcer's swarm and returns what to tell it. A swarm can
// be swept away between being found and being locked, hence the loop; each
// turn but the last means that somebody else made progress.
func (t *Tracker) apply(a *announce, now time.Time) (result, error) {
	for {
		s, err := t.swarm(a.infohash, a.event != eventStopped, now)
		if s == nil || err != nil {
			return result{}, err
		}
		res, err := s.announce(a, t.cfg, now)
		if !errors.Is(err, errSwept) {
			return res, err
		}
	}
}

// swarm finds the swarm of an infohash, or makes it when create is set.
func (t *Tracker) swarm(infohash [20]byte, create bool, now time.Time) (*swarm, error) {
	t.mu.RLock()
	s := t.swarms[infohash]
	t.mu.RUnlock()
	if s != nil || !create {
		return s, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.swarms[infohash]; s != nil {
		return s, nil
	}
	if len(t.swarms) >= t.cfg.MaxSwarms {
		t.sweep(now)
	}
	if len(t.swarms) >= t.cfg.MaxSwarms {
		return nil, refusal(fmt.Sprintf("this tracker is full: it holds %d swarms", t.cfg.MaxSwarms))
	}
	s = newSwarm(&t.peers)
	t.swarms[infohash] = s
	return s, nil
}

// sweepIfDue sweeps all swarms once per Expiry, so that a swarm that nobody
// asks for any more does not stay for ever.
func (t *Tracker) sweepIfDue(now time.Time) {
	t.mu.RLock()
	due := now.Sub(t.lastSweep) >= t.cfg.Expiry
	t.mu.RUnlock()
	if !due {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.lastSweep) >= t.cfg.Expiry {
		t.sweep(now)
	}
}

// sweep forgets expired peers and empty swarms; the caller holds t.mu.
func (t *Tracker) sweep(now time.Time) {
	t.lastSweep = now
	for infohash, s := range t.swarms {
		if s.sweep(now.Add(-t.cfg.Expiry)) {
			delete(t.swarms, infohash)
		}
	}
}
