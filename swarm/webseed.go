package swarm

import (
	"context"
	"crypto/sha1"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"dcfs/cache/piece"
	"dcfs/swarm/gate"
	"dcfs/swarm/metainfo"
)

// WebSeeds says where the payload is to be had by HTTP (BEP 19). It is a
// fallback: nothing is asked there while peers serve.
type WebSeeds struct {
	// URLs of directories that hold one of the release's name; the first that
	// works is used.
	URLs []string
	Name string // of that directory
	// Parts cuts n bytes of the payload stream from off into files.
	Parts func(off, n int64) []Part
	// Patience is for how long no peer may have sent anything before web seeds
	// are asked for what no connected peer has; 0 for 3 to 9 s.
	Patience time.Duration
}

// Part is a run of bytes of one file.
type Part struct {
	Path   string // with slashes, below the release's directory; empty for padding
	Off, N int64  // in the file
}

const (
	webEvery = 500 * time.Millisecond
	// webPatience is random, give or take a half, so that a fleet does not come
	// at once.
	webPatience = 6 * time.Second
	// webSilence is the patience for what connected peers have and do not send.
	webSilence = 25 * time.Second
	// webDemand is how long a reader waits for a piece that no peer has.
	webDemand    = time.Second
	webParallel  = 4 // pieces at a time
	webMostBytes = 32 << 20
)

// web fetches from web seeds what peers cannot give.
type web struct {
	WebSeeds
	store  Store
	client *http.Client
	sums   []byte // SHA-1 of the pieces, one after the other
	layout piece.Layout
	jobs   chan piece.Index
	bytes  atomic.Int64 // of right pieces
	last   atomic.Int64 // when one came, in nanoseconds since 1970

	mu      sync.Mutex
	claimed map[piece.Index]bool // being fetched: nobody else may
	seeds   []*webSeed
}

// webGate decides from what peers do whether the web seeds are asked.
type webGate struct {
	patience time.Duration
	useful   int64     // bytes from peers at the last look
	since    time.Time // when they grew last, or nothing was wanted
	open     bool      // for what no peer has
}

// lack is what is wanted and not here.
type lack struct {
	nobody []piece.Index // no connected peer has it
	others []piece.Index
}

// quiet takes note of what came from peers and says whether nothing did for so
// long that it matters what they have.
func (g *webGate) quiet(now time.Time, useful int64) bool {
	if useful != g.useful || g.since.IsZero() {
		g.useful, g.since = useful, now
	}
	return g.open || now.Sub(g.since) >= g.patience
}

// choose says which pieces to ask web seeds for. Once they are asked for what no
// peer has, they are until there is no such piece, however much comes from
// peers: that is what others fetched from web seeds.
func (g *webGate) choose(now time.Time, l lack) []piece.Index {
	switch {
	case len(l.nobody)+len(l.others) == 0:
		g.since, g.open = now, false
		return nil
	case len(l.nobody) == 0:
		g.open = false
		if now.Sub(g.since) >= webSilence {
			return l.others
		}
		return nil
	}
	if !g.open {
		g.open = now.Sub(g.since) >= g.patience
	}
	if g.open {
		return l.nobody
	}
	return nil
}

// newWeb returns nil without web seeds.
func newWeb(spec Spec, g *gate.Gate) (*web, error) {
	if len(spec.WebSeeds.URLs) == 0 {
		return nil, nil
	}
	length, sums, err := metainfo.Cut(spec.Info)
	layout := piece.Layout{Total: spec.Total, Length: length}
	if err == nil && len(sums) != layout.Count()*sha1.Size {
		err = fmt.Errorf("%d bytes of hashes for %d pieces", len(sums), layout.Count())
	}
	if err != nil {
		return nil, err
	}
	w := &web{
		WebSeeds: spec.WebSeeds, store: spec.Store, client: newWebClient(g), layout: layout, sums: sums,
		jobs: make(chan piece.Index), claimed: make(map[piece.Index]bool),
	}
	if w.Patience <= 0 {
		w.Patience = webPatience/2 + rand.N(webPatience)
	}
	for _, u := range spec.WebSeeds.URLs {
		w.seeds = append(w.seeds, &webSeed{base: u})
	}
	return w, nil
}

// parallel is how many pieces are fetched at a time.
func (w *web) parallel() int {
	return min(webParallel, max(1, int(webMostBytes/max(w.layout.Length, 1))))
}

// has says whether piece i is being fetched from a web seed.
func (w *web) has(i piece.Index) bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.claimed[i]
}

func (w *web) mark(i piece.Index, claimed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if claimed {
		w.claimed[i] = true
	} else {
		delete(w.claimed, i)
	}
}

// askWeb looks from time to time whether peers serve, until ctx ends, and hands
// out what they do not.
func (s *Swarm) askWeb(ctx context.Context) {
	defer s.web.client.CloseIdleConnections()
	defer close(s.web.jobs)
	for range s.web.parallel() {
		s.task(func() { s.fetchWeb(ctx) })
	}
	tick := time.NewTicker(webEvery)
	defer tick.Stop()
	gate := webGate{patience: s.web.Patience}
	start := piece.Index(rand.IntN(max(1, s.web.layout.Count())))
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.handWeb(s.lacking(&gate, now, start), now.Add(webEvery), ctx.Done())
		}
	}
}

// handWeb gives pieces to workers as these become free, until it is time to look
// again.
func (s *Swarm) handWeb(list []piece.Index, until time.Time, done <-chan struct{}) {
	if len(list) == 0 {
		return
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for _, i := range list {
		if s.web.has(i) || s.web.store.Have(i) {
			continue
		}
		if s.web.usable(time.Now()) == nil {
			return
		}
		select {
		case s.web.jobs <- i:
		case <-done:
			return
		case <-timer.C:
			return
		}
	}
}

// lacking lists what web seeds are to be asked for, most urgent first.
func (s *Swarm) lacking(g *webGate, now time.Time, start piece.Index) []piece.Index {
	quiet := g.quiet(now, s.peerStats().Useful)
	demanded, _ := s.hedge.since(now.Add(-webDemand))
	if !quiet && len(demanded) == 0 {
		return nil
	}
	if s.missing() == 0 {
		g.choose(now, lack{})
		return nil
	}
	has := s.reachable()
	var out []piece.Index
	for _, i := range demanded {
		if !has.Has(i) && !s.web.store.Have(i) {
			out = append(out, i)
		}
	}
	if quiet {
		out = append(out, g.choose(now, s.wantedNow(has, start))...)
	}
	return out
}

// reachable is what connected peers have between them.
func (s *Swarm) reachable() *piece.Set {
	out := piece.NewSet(s.web.layout.Count())
	for _, c := range s.t.PeerConns() {
		for i := range s.pieces(c).All() {
			out.Add(i)
		}
		if out.Full() {
			break
		}
	}
	return out
}

// wantedNow lists what is missing and wanted, the most urgent first and from
// start on.
func (s *Swarm) wantedNow(has *piece.Set, start piece.Index) (l lack) {
	n := piece.Index(s.web.layout.Count())
	var byUrgency [piece.Demand + 1]lack
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range n {
		i := (start + k) % n
		u := s.plan.Urgency(i)
		if u == piece.None || s.web.store.Have(i) {
			continue
		}
		of := &byUrgency[u]
		if has.Has(i) {
			of.others = append(of.others, i)
		} else {
			of.nobody = append(of.nobody, i)
		}
	}
	for u := len(byUrgency) - 1; u >= 0; u-- {
		l.nobody = append(l.nobody, byUrgency[u].nobody...)
		l.others = append(l.others, byUrgency[u].others...)
	}
	return l
}
