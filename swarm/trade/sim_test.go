package trade

import (
	"testing"
	"time"

	"dcfs/cache/piece"
)

// network is hosts without a network: messages arrive after a tick, and each
// host sends so many blocks in a tick. It drives plans and queues alone.
type network struct {
	t      *testing.T
	layout piece.Layout
	now    time.Time
	hosts  []*simHost
	post   []letter // arrives in the next tick
}

type letter struct {
	from, to int
	m        Message
}

type simHost struct {
	plan   *Plan
	queue  *Queue
	have   map[piece.Index]bool
	rate   int // blocks a tick
	came   map[piece.Index]int64
	sent   int64
	sentTo map[PeerID]int64
	twice  int // blocks that nobody asked for
	dead   bool
	fresh  []piece.Index // that others have not been told of
	told   time.Time
	rack   string
	cross  int64 // bytes from other racks
}

const simTick = 20 * time.Millisecond

// newNetwork makes a seeder that steers, host 0, and n that have nothing. A
// host is known to others by its number plus one.
func newNetwork(t *testing.T, n, pieces int) *network { return newRacks(t, n, pieces, 0) }

// newRacks is newNetwork with the hosts in so many racks; the seeder is in none.
func newRacks(t *testing.T, n, pieces, racks int) *network {
	w := &network{t: t, layout: piece.Layout{Total: int64(pieces)*(64<<10) - 5, Length: 64 << 10}, now: time.Unix(1e9, 0)}
	for k := range n + 1 {
		h := &simHost{queue: NewQueue(w.layout), have: map[piece.Index]bool{}, rate: 4, came: map[piece.Index]int64{}, sentTo: map[PeerID]int64{}}
		if racks > 0 && k > 0 {
			h.rack = string(rune('a' + k%racks))
		}
		h.plan = New(Config{Layout: w.layout, Steer: k == 0, MaxAsked: 16 << 20, Start: piece.Index(k * 7 % pieces), Rack: h.rack, Key: uint64(k)})
		h.plan.Clock(w.now)
		w.hosts = append(w.hosts, h)
		for i := range piece.Index(pieces) {
			h.plan.Want(i, piece.Background)
			if k == 0 {
				h.have[i] = true
				h.plan.Have(i, true)
			}
		}
	}
	for a := range w.hosts {
		for b := range w.hosts {
			if a != b {
				w.hosts[a].plan.Join(PeerID(b+1), Who{Steers: b == 0, Rack: w.hosts[b].rack, Key: uint64(b)})
			}
		}
		if a > 0 {
			w.hosts[a].plan.HasAll(1)
		}
	}
	return w
}

// tick moves everything on.
func (w *network) tick() {
	w.now = w.now.Add(simTick)
	post := w.post
	w.post = nil
	for _, l := range post {
		if h := w.hosts[l.to]; !h.dead && !w.hosts[l.from].dead {
			h.plan.Clock(w.now)
			w.deliver(l, h)
		}
	}
	for k, h := range w.hosts {
		if h.dead {
			continue
		}
		h.plan.Clock(w.now)
		h.plan.Tick()
		h.queue.Tick(w.now)
		for range h.rate {
			b, ok := h.queue.Next(w.now)
			if !ok {
				break
			}
			h.sent += b.Len
			h.sentTo[b.To] += b.Len
			w.post = append(w.post, letter{k, int(b.To) - 1, Message{Kind: Data, Piece: b.Piece, Off: b.Off, Data: make([]byte, b.Len)}})
		}
		w.mail(k)
		w.tell(k, h)
	}
}

// tell is the library, which tells everybody, but late.
func (w *network) tell(k int, h *simHost) {
	if len(h.fresh) == 0 || w.now.Sub(h.told) < 500*time.Millisecond {
		return
	}
	for other := range w.hosts {
		if other != k {
			w.post = append(w.post, letter{k, other, Message{Kind: Have, Pieces: h.fresh}})
		}
	}
	h.fresh, h.told = nil, w.now
}

func (w *network) mail(k int) {
	for _, s := range w.hosts[k].plan.Take() {
		w.post = append(w.post, letter{k, int(s.To) - 1, s.Message})
	}
}

func (w *network) deliver(l letter, h *simHost) {
	from := PeerID(l.from + 1)
	switch {
	case l.m.Kind == Have:
		h.plan.Sent(from, h.sentTo[from])
		for _, i := range l.m.Pieces {
			h.plan.Has(from, i)
		}
	case l.m.Kind == Offer:
		h.plan.Offered(from, l.m.Piece)
	case l.m.Kind == Open:
		h.plan.Opened(from)
	case l.m.Kind == Want:
		if !h.have[l.m.Piece] {
			w.t.Fatalf("host %d is asked for piece %d, which it does not have", l.to, l.m.Piece)
		}
		h.queue.Add(Job{from, l.m.Piece, Degree(l.m.Off)}, w.now)
	case l.m.Kind == Hurry:
		h.queue.Hurry(from, l.m.Piece, Degree(l.m.Off), w.now)
	case l.m.Kind == Calm:
		h.queue.Calm(from, l.m.Off, w.now)
	case l.m.Kind == Cancel:
		if h.queue.Cancel(from, l.m.Piece) {
			w.post = append(w.post, letter{l.to, l.from, Message{Kind: Reject, Piece: l.m.Piece}})
		}
	case l.m.Kind == Reject:
		h.plan.Rejected(from, l.m.Piece)
	case l.m.Kind == Ack:
		h.queue.Acked(from, l.m.Off, w.now)
	case l.m.Kind == Data:
		w.receive(l, h)
	}
	w.mail(l.to)
}

func (w *network) receive(l letter, h *simHost) {
	n := int64(len(l.m.Data))
	if w.hosts[l.from].rack != h.rack {
		h.cross += n
	}
	w.post = append(w.post, letter{l.to, l.from, Message{Kind: Ack, Off: n}})
	wanted, whole := h.plan.Received(PeerID(l.from+1), l.m.Piece, l.m.Off, n)
	if !wanted {
		h.twice++
	}
	if whole {
		h.have[l.m.Piece] = true
		h.plan.Verified(l.m.Piece, true)
		h.fresh = append(h.fresh, l.m.Piece)
	}
}

// kill takes a host away.
func (w *network) kill(k int) {
	w.hosts[k].dead = true
	for _, h := range w.hosts {
		h.plan.Gone(PeerID(k + 1))
		h.queue.Gone(PeerID(k + 1))
	}
}

// finish runs until all live hosts have everything, and returns the ticks.
func (w *network) finish(most int) int {
	w.t.Helper()
	for n := range most {
		done := true
		for _, h := range w.hosts {
			done = done && (h.dead || len(h.have) == w.layout.Count())
		}
		if done {
			return n
		}
		w.tick()
	}
	for k, h := range w.hosts {
		w.t.Logf("host %d has %d of %d pieces, asked %d, dead %v", k, len(h.have), w.layout.Count(), len(h.plan.asked), h.dead)
	}
	w.t.Fatalf("not finished after %d ticks", most)
	return 0
}

// The seeder sends little more than one copy, nothing comes twice, and the time
// is near to that in which the seeder can send one copy.
func TestOneCopyIsEnough(t *testing.T) {
	const hosts, pieces = 12, 400
	w := newNetwork(t, hosts, pieces)
	least := pieces * 2 / w.hosts[0].rate // two blocks to a piece
	ticks := w.finish(3 * least)
	t.Logf("%d ticks, %d at least; the seeder sent %.3f copies", ticks, least, float64(w.hosts[0].sent)/float64(w.layout.Total))
	if ticks > least*13/10 {
		t.Errorf("it took %d ticks, and %d are enough for one copy", ticks, least)
	}
	if w.hosts[0].sent > w.layout.Total*115/100 {
		t.Errorf("the seeder sent %d bytes of %d", w.hosts[0].sent, w.layout.Total)
	}
	for k, h := range w.hosts {
		if h.twice > 0 {
			t.Errorf("host %d got %d blocks that it did not wait for", k, h.twice)
		}
	}
}

// What a host had that nobody else has is offered again when it dies.
func TestDeadHostsPiecesComeAgain(t *testing.T) {
	w := newNetwork(t, 5, 200)
	for range 20 {
		w.tick()
	}
	w.kill(2)
	for range 20 {
		w.tick()
	}
	w.kill(4)
	w.finish(2000)
}

// The seeder may die when everything is out.
func TestSeederDiesWhenAllIsOut(t *testing.T) {
	w := newNetwork(t, 6, 200)
	for w.hosts[0].plan.steer.left > 0 {
		w.tick()
	}
	w.kill(0)
	w.finish(2000)
}

// A host with a slow link neither holds the others up nor stays behind.
func TestSlowHost(t *testing.T) {
	w := newNetwork(t, 6, 200)
	w.hosts[3].rate = 1
	w.finish(400)
}

// A piece that somebody reads comes before all others, from a seeder that did
// not offer it.
func TestDemandComesFirst(t *testing.T) {
	w := newNetwork(t, 4, 400)
	for range 10 {
		w.tick()
	}
	h := w.hosts[1]
	var wanted piece.Index
	for i := range piece.Index(400) {
		if !h.have[i] && h.plan.copies[i] == 1 {
			wanted = i // the last that only the seeder has
		}
	}
	h.plan.Want(wanted, piece.Demand)
	w.mail(1)
	for n := 0; !h.have[wanted]; n++ {
		if n == 12 {
			t.Fatalf("piece %d did not come in %d ticks", wanted, n)
		}
		w.tick()
	}
}

// What is lent to somebody else is not fetched, nor does the seeder wait for a
// host that does not want it; taken back, it comes.
func TestLentPiecesComeFromElsewhere(t *testing.T) {
	w := newNetwork(t, 4, 200)
	for range 10 {
		w.tick()
	}
	h := w.hosts[2]
	for i := range piece.Index(200) {
		h.plan.Lend(i, true)
	}
	w.mail(2)
	before := len(h.have)
	for range 150 {
		w.tick()
	}
	if len(h.have) > before+1 { // one may have been at its hash
		t.Errorf("%d pieces came that were lent", len(h.have)-before)
	}
	if left := w.hosts[0].plan.steer.left; left > 0 {
		t.Errorf("%d pieces are not out: the seeder waits for who wants none", left)
	}
	for i := range piece.Index(200) {
		h.plan.Lend(i, false)
	}
	h.plan.Fill()
	w.mail(2)
	w.finish(400)
}

// crossed is how many copies came into each rack.
func (w *network) crossed() map[string]float64 {
	in := make(map[string]float64)
	for _, h := range w.hosts[1:] {
		in[h.rack] += float64(h.cross) / float64(w.layout.Total)
	}
	return in
}

// Into each rack comes little more than one copy, and it takes no longer.
func TestOneCopyForEachRack(t *testing.T) {
	const pieces = 400
	flat := newRacks(t, 16, pieces, 0).finish(1000)
	w := newRacks(t, 16, pieces, 4)
	ticks := w.finish(1000)
	t.Logf("%d ticks, %d without racks; copies into each rack: %v", ticks, flat, w.crossed())
	if ticks > flat*115/100 {
		t.Errorf("it took %d ticks, and %d without racks", ticks, flat)
	}
	for rack, copies := range w.crossed() {
		if copies > 1.2 {
			t.Errorf("%.3f copies came into rack %s", copies, rack)
		}
	}
	if w.hosts[0].sent > w.layout.Total*115/100 {
		t.Errorf("the seeder sent %d bytes of %d", w.hosts[0].sent, w.layout.Total)
	}
}

// A member of a rack that fetches nothing, whose turn it is for a part of the
// pieces, delays the others, but they get them.
func TestRackWithAnIdleMember(t *testing.T) {
	w := newRacks(t, 8, 100, 2)
	h := w.hosts[3]
	for i := range piece.Index(100) {
		h.plan.Lend(i, true)
	}
	for n := 0; ; n++ {
		lacking := 0
		for k, other := range w.hosts {
			if k != 3 && len(other.have) < 100 {
				lacking++
			}
		}
		if lacking == 0 {
			t.Logf("%d ticks, copies into each rack: %v", n, w.crossed())
			return
		}
		if n > 50+int(5*rackPatience/simTick) {
			t.Fatalf("%d hosts are not done after %d ticks", lacking, n)
		}
		w.tick()
	}
}

// The members agree whose turn it is, whoever asks, and have about as many turns.
func TestRackTurns(t *testing.T) {
	const members, pieces = 5, 1000
	turns := make([]int, members)
	for k := range members {
		r := newRack(pieces)
		for other := range members {
			if other != k {
				r.joined(&peer{who: Who{Key: uint64(other)}})
			}
		}
		for i := range piece.Index(pieces) {
			if r.before(uint64(k), i) == 0 {
				turns[k]++
			}
		}
	}
	sum := 0
	for k, n := range turns {
		if sum += n; n < pieces/members*7/10 || n > pieces/members*13/10 {
			t.Errorf("member %d has %d turns of %d", k, n, pieces)
		}
	}
	if sum != pieces {
		t.Errorf("%d turns for %d pieces", sum, pieces)
	}
}
