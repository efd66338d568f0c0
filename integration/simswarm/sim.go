package main

import (
	"math/rand/v2"
	"strconv"
	"time"

	"dcfs/cache/piece"
	"dcfs/swarm/trade"
)

// setup is one swarm: an origin and hosts, all on links of one rate.
type setup struct {
	hosts int
	mbit  float64
	bytes int64
	piece int64 // its length
	peers int   // that a host knows at most
	racks int   // 0: all on one switch
	over  float64
	flat  bool // hosts do not know of racks
	seed  uint64
	fit
}

// fit is what the simulator has from the lab.
type fit struct {
	wire    float64       // bytes on a link for each of payload: headers, acknowledgements
	begin   time.Duration // until a host asks for its first piece
	end     time.Duration // from the last piece to the copy
	latency time.Duration // of a link
	queue   time.Duration // what a small message waits for at most behind data on a busy link
}

// lab is how the lab of this repository behaves, on hosts that wait for no
// processor.
var lab = fit{wire: 1.03, begin: 400 * time.Millisecond, end: 100 * time.Millisecond, latency: 100 * time.Microsecond, queue: 20 * time.Millisecond}

// rate is that of a host's link, in bytes of payload a second.
func (s setup) rate() float64 { return s.mbit * 1e6 / 8 / s.wire }

// bound is the least time in which anybody could do it on these links, headers
// not counted: as benchswarm says it, and the racks' links.
func (s setup) bound() time.Duration {
	rate, f, n := s.mbit*1e6/8, float64(s.bytes), float64(s.hosts)
	least := max(f/rate, n*f/(rate+n*rate))
	if s.racks > 0 {
		least = max(least, f/s.rackRate()/s.wire)
	}
	return time.Duration(least * float64(time.Second))
}

func (s setup) rackRate() float64 { return s.rate() * float64(s.hosts) / float64(s.racks) / s.over }

// line is one direction of a link. What comes first is sent first.
type line struct {
	rate float64       // bytes of payload a second
	free time.Duration // when all that came is sent
	sent int64
}

// pass has n bytes, the first of which comes at head and the last at tail, go
// through the line; it returns when the first and the last leave it.
func (l *line) pass(head, tail time.Duration, n int64) (first, last time.Duration) {
	first = max(head, l.free)
	l.free = first + time.Duration(float64(n)/l.rate*1e9)
	l.sent += n
	return first, max(tail, l.free)
}

// backlog is how long something small waits behind what is on a line.
func (l *line) backlog(now, most time.Duration) time.Duration { return min(max(l.free-now, 0), most) }

// node is a host, or the origin.
type node struct {
	plan     *trade.Plan
	queue    *trade.Queue
	up, down line
	rack     int // -1 for none
	key      uint64
	links    []link
	sentTo   map[trade.PeerID]int64 // bytes
	have     []bool
	count    int
	done     time.Duration
	fresh    []piece.Index // that the library did not tell others of
	told     time.Duration
}

// link is a connection as one end sees it, whose PeerID is its place plus one.
type link struct {
	to   int32
	back trade.PeerID // the other end's name for this end
}

// world is a swarm in virtual time.
type world struct {
	setup
	layout  piece.Layout
	now     time.Duration
	nodes   []*node
	in, out []line // of racks
	cross   []int64
	events  events
	rng     *rand.Rand
	left    int // hosts that are not done
}

// As in package swarm.
const (
	tick     = 20 * time.Millisecond
	tell     = 500 * time.Millisecond
	maxAsked = 64 << 20
)

var epoch = time.Unix(1e9, 0)

func newWorld(s setup) *world {
	w := &world{setup: s, layout: piece.Layout{Total: s.bytes, Length: s.piece}, left: s.hosts, rng: rand.New(rand.NewPCG(s.seed, 1))}
	for range s.racks {
		w.in, w.out = append(w.in, line{rate: s.rackRate()}), append(w.out, line{rate: s.rackRate()})
	}
	w.cross = make([]int64, s.racks)
	for k := range s.hosts + 1 {
		w.nodes = append(w.nodes, w.newNode(k))
	}
	for _, c := range w.graph() {
		w.connect(c[0], c[1])
	}
	for k := range w.nodes {
		w.at(s.begin+time.Duration(w.rng.Int64N(int64(tick))), event{kind: ticks, to: int32(k)})
	}
	return w
}

func (w *world) newNode(k int) *node {
	n := w.layout.Count()
	cfg := trade.Config{Layout: w.layout, Steer: k == 0, MaxAsked: maxAsked, Start: piece.Index(w.rng.IntN(n)), Key: w.rng.Uint64()}
	h := &node{key: cfg.Key, sentTo: make(map[trade.PeerID]int64), queue: trade.NewQueue(w.layout), have: make([]bool, n), rack: -1, up: line{rate: w.rate()}, down: line{rate: w.rate()}}
	if w.racks > 0 && k > 0 {
		h.rack = (k - 1) % w.racks
	}
	cfg.Rack = w.rackName(h)
	h.plan = trade.New(cfg)
	h.plan.Clock(epoch)
	for i := range piece.Index(n) {
		h.plan.Want(i, piece.Background)
		if k == 0 {
			h.have[i] = true
			h.plan.Have(i, true)
		}
	}
	return h
}

// rackName is what a host says of itself.
func (w *world) rackName(h *node) string {
	if w.flat || h.rack < 0 {
		return ""
	}
	return strconv.Itoa(h.rack)
}

// graph is who knows whom: everybody everybody, or as many as a host keeps, half of
// them in its rack if the tracker knows of racks.
func (w *world) graph() (pairs [][2]int) {
	n := len(w.nodes)
	if n <= w.peers+1 {
		for a := range n {
			for b := range a {
				pairs = append(pairs, [2]int{b, a})
			}
		}
		return pairs
	}
	known := make([]map[int]bool, n)
	for a := range known {
		known[a] = make(map[int]bool)
	}
	meet := func(a, b int) {
		if a != b && !known[a][b] && len(known[a]) < w.peers && len(known[b]) < w.peers {
			known[a][b], known[b][a] = true, true
			pairs = append(pairs, [2]int{a, b})
		}
	}
	for _, b := range w.rng.Perm(n - 1)[:w.peers] {
		meet(0, b+1)
	}
	if w.racks > 0 && !w.flat {
		size := (w.hosts + w.racks - 1) / w.racks
		for a := 1; a < n; a++ {
			for _, k := range w.rng.Perm(size) {
				if b := (a-1)%w.racks + k*w.racks + 1; b < n && w.near(a, known[a]) < w.peers/2 {
					meet(a, b)
				}
			}
		}
	}
	for a := 1; a < n; a++ {
		for try := 0; len(known[a]) < w.peers && try < 4*w.peers; try++ {
			meet(a, 1+w.rng.IntN(n-1))
		}
	}
	return pairs
}

func (w *world) near(a int, known map[int]bool) (n int) {
	for b := range known {
		if w.nodes[b].rack == w.nodes[a].rack {
			n++
		}
	}
	return n
}

func (w *world) connect(a, b int) {
	for _, e := range [][2]int{{a, b}, {b, a}} {
		h, other := w.nodes[e[0]], w.nodes[e[1]]
		back := len(other.links)
		if e[0] == b { // the other end has its link by now
			back--
		}
		h.links = append(h.links, link{int32(e[1]), trade.PeerID(back + 1)})
		id := trade.PeerID(len(h.links))
		h.plan.Join(id, trade.Who{Steers: e[1] == 0, Rack: w.rackName(other), Key: other.key})
		if e[1] == 0 {
			h.plan.HasAll(id)
		}
	}
}
