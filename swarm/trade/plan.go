package trade

import (
	"math/rand/v2"
	"time"

	"dcfs/cache/piece"
)

// PeerID names a connection.
type PeerID uint64

// Send is a message that a plan wants to go out.
type Send struct {
	To PeerID
	Message
}

// Config describes the release and this host's part.
type Config struct {
	Layout   piece.Layout
	Steer    bool        // this host has everything, and is where it all comes from
	Start    piece.Index // where this host begins among pieces that are equally rare
	MaxAsked int64       // bytes that may be asked for and not verified
	Rack     string      // where this host stands; "": nobody is nearer than others
	Key      uint64      // this host's Who.Key
}

// Who is what a peer says of itself. A peer that lies harms itself, and others by
// a delay.
type Who struct {
	Steers bool   // it has everything and is asked only for what it offers, until it says that it is open
	Rack   string // "" for none
	Key    uint64 // the same for all that know it; it decides who fetches what for a rack
}

const (
	minWindow     = 128 << 10 // bytes asked of a peer at a time, at least two pieces
	maxWindow     = 16 << 20
	windowTime    = 200 * time.Millisecond // of the rate at which a peer sends
	askTime       = time.Second            // of the highest rate at which all sent together
	askPieces     = 16                     // at least
	rateEvery     = 100 * time.Millisecond
	stealAfter    = 100 * time.Millisecond // a piece that waits may be asked of an idle peer
	cancelTimeout = 5 * time.Second
	dataTimeout   = 20 * time.Second // no byte of a piece came, from a peer that sends others
	firstShun     = 15 * time.Second
	longestShun   = 5 * time.Minute
	maxScan       = 1024 // pieces looked at to choose one
)

// Plan is what one host asks of others in one swarm.
type Plan struct {
	cfg    Config
	now    time.Time
	out    []Send
	urge   []piece.Urgency
	have   set
	need   set // wanted, not here, asked of nobody, not lent
	needs  int // how many those are
	lent   set // left to somebody else to fetch
	copies []int32
	ahead  map[piece.Index]bool // needed pieces that go before the rest
	asked  map[piece.Index]*ask
	bytes  int64   // of all asked, until they are verified
	pace   meter   // of all that comes
	peak   float64 // the highest it was
	peers  map[PeerID]*peer
	order  []*peer // in which they came: what a plan does depends on nothing else
	rand   *rand.Rand
	rack   *rack // nil without one
	steer  *steering
	news   news
	times  Latencies // of urgent pieces, until their first block came
	late   []Late
	calm   calm
}

// ask is a piece that was asked for.
type ask struct {
	of       *peer
	since    time.Time
	got      int64     // bytes
	canceled time.Time // when it was taken back; zero if it was not
	hashing  bool
	degree   Degree
	waited   time.Time // since when somebody waits for it, or for its next block
}

// peer is what is known of another host.
type peer struct {
	id      PeerID
	who     Who
	near    bool // in this host's rack
	left    bool // it is gone
	has     set
	count   int
	offered set
	closed  bool // it steers: only what it offers may be asked
	asked   map[piece.Index]*ask
	bytes   int64 // asked and not received

	faults int       // pieces that did not come, since data came last
	shun   time.Time // until when it is asked only for what nobody else has

	came  time.Time // when data came last; zero for never
	heard time.Time // the same, or when its time began anew
	meter
}

// meter measures how fast something comes.
type meter struct {
	since time.Time
	fresh int64   // bytes since then
	rate  float64 // bytes a second
}

// New returns the plan of a host that has nothing and wants nothing.
func New(cfg Config) *Plan {
	n := cfg.Layout.Count()
	p := &Plan{
		cfg: cfg, urge: make([]piece.Urgency, n), have: newSet(n), need: newSet(n), lent: newSet(n),
		copies: make([]int32, n), ahead: make(map[piece.Index]bool),
		asked: make(map[piece.Index]*ask), peers: make(map[PeerID]*peer),
		rand: rand.New(rand.NewPCG(cfg.Key, uint64(cfg.Start))),
		news: news{taken: make(map[*peer][]piece.Index)},
	}
	if cfg.Steer {
		p.steer = newSteering(n)
	}
	if cfg.Rack != "" {
		p.rack = newRack(n)
	}
	return p
}

// Take returns what is to be sent, and forgets it.
func (p *Plan) Take() []Send {
	out := p.out
	p.out = nil
	return out
}

func (p *Plan) send(to PeerID, k Kind, i piece.Index) {
	p.out = append(p.out, Send{to, Message{Kind: k, Piece: i}})
}

func (p *Plan) sendDegree(to PeerID, k Kind, i piece.Index, d Degree) {
	p.out = append(p.out, Send{to, Message{Kind: k, Piece: i, Off: int64(d)}})
}

// Clock tells the plan what time it is; it comes before other events.
func (p *Plan) Clock(now time.Time) { p.now = now }

// Want says how urgently piece i is wanted; None: not at all.
func (p *Plan) Want(i piece.Index, u piece.Urgency) {
	p.urge[i] = u
	if a, d := p.asked[i], degree(u); a != nil && !a.hashing && d > a.degree {
		a.degree, a.waited = d, p.now
		p.sendDegree(a.of.id, Hurry, i, d) // no Want: all of it may be under way, and it would come twice
	}
	p.renew(i)
	if p.ahead[i] {
		p.fillAhead(i)
	}
}

// renew puts piece i among the needed ones, or takes it out.
func (p *Plan) renew(i piece.Index) {
	needed := !p.have.has(i) && p.asked[i] == nil && p.urge[i] > piece.None && !p.lent.has(i)
	if needed != p.need.has(i) {
		if needed {
			p.need.add(i)
			p.needs++
		} else {
			p.need.remove(i)
			p.needs--
		}
	}
	if needed && degree(p.urge[i]) > Rest {
		p.ahead[i] = true
	} else {
		delete(p.ahead, i)
	}
}

// Lend leaves piece i to somebody else, or takes it back. Who was asked for it,
// or offered it, is told; what still comes of it is not wanted, because nobody
// could tell whose block a wrong hash came from.
func (p *Plan) Lend(i piece.Index, lent bool) {
	if !lent {
		p.lent.remove(i)
		p.renew(i)
		return
	}
	p.lent.add(i)
	p.renew(i)
	if a := p.asked[i]; a != nil && !a.hashing {
		p.send(a.of.id, Cancel, i)
		if a.of.closed {
			p.send(a.of.id, Reject, i) // it offered the piece
		}
		p.forget(i)
	}
	for _, q := range p.order {
		if q.offered.has(i) {
			q.offered.remove(i)
			p.send(q.id, Reject, i)
		}
	}
}

// Idle says whether nothing is asked of anybody.
func (p *Plan) Idle() bool { return len(p.asked) == 0 }

// Asked says whether piece i was asked of a peer.
func (p *Plan) Asked(i piece.Index) bool { return p.asked[i] != nil }

// Copies is how many peers have piece i.
func (p *Plan) Copies(i piece.Index) int { return int(p.copies[i]) }

// Have says that piece i is here, or is not any more.
func (p *Plan) Have(i piece.Index, here bool) {
	if a := p.asked[i]; a != nil {
		if here && a.got == 0 && !a.hashing {
			p.send(a.of.id, Cancel, i) // it came from elsewhere
		}
		p.forget(i)
	}
	if here {
		p.have.add(i)
	} else {
		p.have.remove(i)
	}
	p.renew(i)
}

// forget ends an ask.
func (p *Plan) forget(i piece.Index) {
	a := p.asked[i]
	if a == nil {
		return
	}
	size := p.cfg.Layout.Size(i)
	p.bytes -= size
	if !a.hashing {
		a.of.bytes -= size - a.got
		delete(a.of.asked, i)
	}
	delete(p.asked, i)
	p.renew(i)
}

// Received takes note of a block of piece i and says whether it was asked for,
// and whether the piece is whole with it. Blocks come in order.
func (p *Plan) Received(from PeerID, i piece.Index, off, n int64) (wanted, whole bool) {
	a := p.asked[i]
	q := p.peers[from]
	if a == nil || q == nil || a.of != q || a.hashing || off != a.got || n > p.cfg.Layout.Size(i)-off {
		return false, false
	}
	if a.got == 0 && a.degree == Urgent {
		p.times.Add(p.now.Sub(a.waited))
	}
	a.got += n
	a.waited = p.now
	q.bytes -= n
	q.came, q.heard = p.now, p.now
	q.faults = 0
	q.measure(n, p.now)
	p.pace.measure(n, p.now)
	p.peak = max(p.peak, p.pace.rate)
	if a.got < p.cfg.Layout.Size(i) {
		return true, false
	}
	a.hashing = true
	delete(q.asked, i)
	p.keepCalm()
	p.fill(q)
	return true, true
}

func (q *meter) measure(n int64, now time.Time) {
	q.fresh += n
	span := now.Sub(q.since)
	if span < rateEvery {
		return
	}
	if span < time.Second {
		q.rate += 0.3 * (float64(q.fresh)/span.Seconds() - q.rate)
	}
	q.since, q.fresh = now, 0
}

// Verified says how the hash of a whole piece was.
func (p *Plan) Verified(i piece.Index, good bool) {
	a := p.asked[i]
	p.forget(i)
	if good {
		if a != nil && p.peers[a.of.id] == a.of {
			p.news.add(i, a.of, p.now)
		}
		p.Have(i, true)
	}
	if !good || p.bytes+p.cfg.Layout.Length >= p.most() { // else nothing changed that somebody could be asked for
		p.Fill()
	}
}

// Rejected says that a peer does not send a piece, or does not want an offer.
func (p *Plan) Rejected(from PeerID, i piece.Index) {
	q := p.peers[from]
	if q == nil {
		return
	}
	if p.steer != nil {
		p.steer.declined(p, from, i)
	}
	if a := p.asked[i]; a != nil && a.of == q && !a.hashing {
		canceled := !a.canceled.IsZero()
		p.forget(i)
		if canceled && q.closed {
			q.offered.add(i) // the offer stands
			p.Fill()
			return
		}
		if !canceled && q.has.has(i) { // it does not have what it said
			p.lacks(q, i)
		}
		q.offered.remove(i)
		p.Fill()
	}
}
