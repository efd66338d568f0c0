package board

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dcfs/cmd/internal/control"
)

// A snapshot is kept for at least keepFor, and for as long as it took to make
// times keepShare: many hosts, or many who look, cost at most a twentieth of a
// processor.
const (
	keepFor   = time.Second
	keepShare = 20
)

// longWaitMS is how long a read may wait before somebody should look.
const longWaitMS = 5000

// snapshot is the board at one moment. It does not change.
type snapshot struct {
	until    time.Time
	overview Overview
	releases map[string]*compiled // by version
}

// compiled is a release with all its hosts.
type compiled struct {
	release Release
	hosts   []Host
}

// Overview is everything at a glance, not older than a second or the time that
// making it takes twenty times.
func (b *Board) Overview() Overview { return b.look().overview }

// look returns a snapshot that is not too old.
func (b *Board) look() *snapshot {
	b.view.Lock()
	defer b.view.Unlock()
	if now := b.cfg.Now(); b.last == nil || !now.Before(b.last.until) {
		began := time.Now()
		b.last = b.compile(now)
		b.last.until = now.Add(max(keepFor, keepShare*time.Since(began)))
	}
	return b.last
}

func (b *Board) compile(now time.Time) *snapshot {
	b.Look()
	items := b.cfg.Releases()
	byRelease := make(map[string][]Host)
	b.mu.Lock()
	for _, e := range b.hosts {
		h := e.host(now)
		h.Self = b.cfg.Kind == KindNode
		byRelease[e.infohash] = append(byRelease[e.infohash], h)
	}
	maps.DeleteFunc(b.sent, func(infohash string, _ meter) bool {
		return !slices.ContainsFunc(items, func(it Item) bool { return it.Infohash == infohash })
	})
	rates := make(map[string]int64)
	for _, it := range items {
		m := b.sent[it.Infohash].next(now, it.Sent)
		b.sent[it.Infohash], rates[it.Infohash] = m, m.rate
	}
	b.mu.Unlock()
	var silent map[string][]Other
	if b.cfg.Others != nil {
		silent = b.cfg.Others()
	}
	maps.DeleteFunc(b.stock, func(infohash string, _ map[string]string) bool {
		return !slices.ContainsFunc(items, func(it Item) bool { return it.Infohash == infohash })
	})
	s := &snapshot{releases: make(map[string]*compiled)}
	s.overview = Overview{
		Schema: Schema, Kind: b.cfg.Kind, Name: b.cfg.Name, Program: b.cfg.Program, Started: b.started, Now: now,
		Sums: Sums{States: map[string]int{}}, Releases: []Release{}, Total: len(items),
	}
	counted := make(map[string]bool, len(items))
	for _, it := range items {
		hosts := slices.Clone(byRelease[it.Infohash]) // versions may share an info-hash
		hosts = append(hosts, others(silent[it.Infohash], hosts, it.Base, now)...)
		c := compileRelease(it, hosts, rates[it.Infohash])
		s.releases[it.Version] = c
		if !counted[it.Infohash] { // it is one swarm, whatever its names
			counted[it.Infohash] = true
			s.overview.add(&c.release.Sums)
			b.regard(it, hosts, now)
		}
		brief := c.release
		brief.Cells, brief.Mine = nil, nil
		s.overview.Releases = append(s.overview.Releases, brief)
	}
	s.overview.Events = b.events.newest()
	slices.SortFunc(s.overview.Releases, func(a, b Release) int {
		return cmp.Or(compareBool(b.Hosts > 0, a.Hosts > 0), b.Created.Compare(a.Created), cmp.Compare(a.Version, b.Version))
	})
	s.overview.Releases = s.overview.Releases[:min(len(items), MaxReleases)]
	return s
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// host is what a report shows.
func (e *entry) host(now time.Time) Host {
	r := &e.r
	late := now.Sub(e.at)
	h := Host{
		Name: r.Host, Addr: e.where(), Rack: r.Rack, Reports: true, State: string(r.State), Reason: r.Reason,
		SinceMS: max(0, now.Sub(r.StateSince).Milliseconds()), SeenMS: late.Milliseconds(), Have: r.BytesHave,
		Stalled: e.stalled, DownRate: r.DownRate, UpRate: r.UpRate, Peers: r.Peers, Origin: r.BytesOrigin,
		FromPeers: r.BytesPeers, Reuse: r.BytesReused, FirstMS: r.FirstByteMS, Waiting: len(r.Waiting),
		cells: r.Cells,
	}
	if h.Progress = share(r.BytesHave, r.Bytes); e.whole() {
		h.Progress = 1
	}
	if e.lost {
		h.State = stateLost
	}
	if e.lost || e.ended() {
		h.DownRate, h.UpRate, h.Peers, h.Waiting = 0, 0, 0, 0
	} else {
		h.EtaMS = r.EtaMS
		for _, w := range r.Waiting {
			age := w.AgeMS + late.Milliseconds()
			h.Waits = append(h.Waits, Wait{Path: w.Path, Piece: w.Piece, AgeMS: age, Readers: w.Readers})
			h.OldestMS = max(h.OldestMS, age)
		}
		if r.Bound != nil {
			h.Bound, h.BoundText = r.Bound.Kind, r.Bound.Text
		}
	}
	h.Strip = strip(r.Cells, e.whole(), r.Pieces)
	return h
}

// others are the hosts that do not report themselves.
func others(list []Other, reporting []Host, base Base, now time.Time) []Host {
	known := make(map[string]bool, len(reporting))
	for i := range reporting {
		known[reporting[i].Addr] = true
	}
	var out []Host
	for _, o := range list {
		addr := netip.AddrPortFrom(o.Addr.Addr().Unmap(), o.Addr.Port()).String()
		if known[addr] {
			continue
		}
		h := Host{Addr: addr, Client: clip(o.Client, maxName), State: "fetching", Have: min(max(0, o.Have), base.Bytes), cells: o.Cells}
		if len(h.cells) != cellCount(base.Pieces) {
			h.cells = nil
		}
		if h.Progress = share(h.Have, base.Bytes); o.Whole {
			h.State, h.Progress, h.Have = "seeding", 1, base.Bytes
		}
		if !o.Seen.IsZero() {
			h.SeenMS = max(0, now.Sub(o.Seen).Milliseconds())
		}
		if h.cells != nil || o.Whole {
			h.Strip = strip(h.cells, o.Whole, base.Pieces)
		}
		out = append(out, h)
	}
	return out
}

func share(have, all int64) float64 {
	if all <= 0 {
		return 0
	}
	return min(1, float64(have)/float64(all))
}

// there reports whether a host counts: it has not left.
func (h *Host) there() bool {
	return h.State != stateLost && h.State != string(control.Done) && h.State != string(control.Failed)
}

// whole reports whether a host is there and has everything.
func (h *Host) whole() bool { return h.there() && h.Progress == 1 }

// attention reports whether somebody should look at a host.
func (h *Host) attention() bool {
	return h.State == stateLost || h.State == string(control.Failed) || h.Stalled && h.there() || h.OldestMS > longWaitMS
}

func compileRelease(it Item, hosts []Host, rate int64) *compiled {
	r := Release{Base: it.Base, Sums: Sums{States: map[string]int{}, Sent: it.Sent, SentRate: rate}, Kinds: []Kind{}}
	if it.Bytes > 0 {
		r.Copies = float64(it.Sent) / float64(it.Bytes)
	}
	kinds := make(map[string]int)
	for i := range hosts {
		h := &hosts[i]
		r.count(h)
		if h.Self {
			r.Mine = mine(h, it.Pieces)
		}
		if h.there() {
			r.Progress += h.Progress
			r.EtaMS = max(r.EtaMS, h.EtaMS)
			if h.Bound != "" {
				kinds[h.Bound]++
			}
		}
	}
	if r.Hosts > 0 {
		r.Progress /= float64(r.Hosts)
	}
	for kind, n := range kinds {
		r.Kinds = append(r.Kinds, Kind{kind, n})
	}
	slices.SortFunc(r.Kinds, func(a, b Kind) int {
		return cmp.Or(cmp.Compare(b.Hosts, a.Hosts), cmp.Compare(a.Kind, b.Kind))
	})
	r.Cells = heat(hosts, it.Pieces)
	r.Rarest = rarest(r.Cells)
	slices.SortFunc(hosts, func(a, b Host) int {
		return cmp.Or(compareBool(b.Self, a.Self), compareBool(b.attention(), a.attention()), compareBool(b.there(), a.there()),
			cmp.Compare(b.OldestMS, a.OldestMS), cmp.Compare(a.Progress, b.Progress), strings.Compare(a.Name, b.Name),
			strings.Compare(a.Addr, b.Addr))
	})
	return &compiled{release: r, hosts: hosts}
}

// count adds a host to the sums.
func (s *Sums) count(h *Host) {
	s.States[h.State]++
	if h.attention() {
		s.Attention++
	}
	s.Origin += h.Origin
	s.Peers += h.FromPeers
	s.Reuse += h.Reuse
	if !h.there() {
		return
	}
	s.Hosts++
	if h.Reports {
		s.Reporting++
	}
	if h.whole() {
		s.Whole++
	}
	s.DownRate += h.DownRate
	s.UpRate += h.UpRate
	s.Waiting += h.Waiting
	s.OldestMS = max(s.OldestMS, h.OldestMS)
}

// add adds the sums of a release to those of all.
func (s *Sums) add(o *Sums) {
	for state, n := range o.States {
		s.States[state] += n
	}
	s.Hosts, s.Reporting, s.Whole, s.Attention = s.Hosts+o.Hosts, s.Reporting+o.Reporting, s.Whole+o.Whole, s.Attention+o.Attention
	s.DownRate, s.UpRate, s.Sent, s.SentRate = s.DownRate+o.DownRate, s.UpRate+o.UpRate, s.Sent+o.Sent, s.SentRate+o.SentRate
	s.Waiting, s.OldestMS = s.Waiting+o.Waiting, max(s.OldestMS, o.OldestMS)
	s.Origin, s.Peers, s.Reuse = s.Origin+o.Origin, s.Peers+o.Peers, s.Reuse+o.Reuse
}
