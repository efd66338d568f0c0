package trade

import (
	"slices"
	"time"

	"dcfs/cache/piece"
)

const (
	maxQueued    = 1024 // pieces that one peer may wait for
	maxUrgent    = 128  // of these before all that is not urgent
	flightTime   = 100 * time.Millisecond
	urgentFlight = 60 * time.Millisecond
	urgentLinger = 500 * time.Millisecond
	calmLinger   = 500 * time.Millisecond
	minFlight    = slots * 2 * BlockLength // on slow links, too: with less, half of the slots wait for the others
	minUrgent    = 96 << 10                // the same while something is urgent
	minEach      = BlockLength + 1         // two blocks
	maxFlight    = 8 << 20
	aloneTime    = 4 * time.Millisecond // to one that alone is sent something
	aloneFlight  = 8 * BlockLength
	firstFlight  = minFlight
	flightEvery  = 300 * time.Millisecond
	bestOf       = 16 // measurements, of which the fastest counts
)

// slots is how many pieces are under way at once. What is sent to everybody at
// the same time comes late to all; one alone cannot fill the link while its
// receiver is busy.
const slots = 8

// silence is after how long a peer that acknowledges nothing holds up no other.
const silence = 2 * time.Second

// Queue is what one host has to send.
type Queue struct {
	layout  piece.Layout
	waiting []Job
	active  []*Block // pieces under way, the one whose turn it is first
	flight  map[PeerID]*flight
	turns   map[PeerID]int // when each was sent a piece last
	turn    int
	total   int64 // bytes under way, but to peers that fell silent
	limit   int64
	urgent  time.Time // when something urgent was asked last

	since time.Time
	acked int64           // bytes since then
	rates [bestOf]float64 // bytes a second, the newest at next-1
	next  int
}

// flight is what is under way to one peer.
type flight struct {
	bytes  int64     // sent and not acknowledged
	since  time.Time // of the last sign of life
	silent bool

	calm  int64     // so much may be under way
	until time.Time // so long
}

// Job is a piece for a peer.
type Job struct {
	To     PeerID
	Piece  piece.Index
	Degree Degree
}

// Block is the next part of a piece that is under way.
type Block struct {
	Job
	Off, Len int64
}

// NewQueue returns an empty queue.
func NewQueue(layout piece.Layout) *Queue {
	return &Queue{layout: layout, flight: make(map[PeerID]*flight), turns: make(map[PeerID]int), limit: firstFlight}
}

// Add queues a piece; it returns false when a peer waits for too many.
func (q *Queue) Add(j Job, now time.Time) bool {
	if j.Degree == Urgent && q.urgents(j.To) >= maxUrgent {
		j.Degree = Soon
	}
	if j.Degree == Urgent {
		q.urgent = now
	}
	same := func(w Job) bool { return w.To == j.To && w.Piece == j.Piece }
	for _, b := range q.active {
		if same(b.Job) {
			b.Degree = max(b.Degree, j.Degree)
			return true
		}
	}
	n := 0
	for k, w := range q.waiting {
		if same(w) {
			q.waiting[k].Degree = max(w.Degree, j.Degree)
			return true
		}
		if w.To == j.To {
			n++
		}
	}
	if n >= maxQueued {
		return false
	}
	q.waiting = append(q.waiting, j)
	return true
}

// Hurry raises the degree of a piece that a peer asked for, if it is not sent by
// now.
func (q *Queue) Hurry(to PeerID, i piece.Index, d Degree, now time.Time) {
	known := func(w Job) bool { return w.To == to && w.Piece == i }
	if slices.ContainsFunc(q.waiting, known) || slices.ContainsFunc(q.active, func(b *Block) bool { return known(b.Job) }) {
		q.Add(Job{To: to, Piece: i, Degree: d}, now)
	}
}

// Calm keeps what is under way to a peer to so many bytes, for a while, except for
// what is urgent: somebody waits there, for pieces of others, too. With 0 bytes only
// what goes before the rest is sent, a block at a time.
func (q *Queue) Calm(to PeerID, bytes int64, now time.Time) {
	f := q.to(to, now)
	f.calm, f.until = bytes, now.Add(calmLinger)
}

// to is what is under way to a peer.
func (q *Queue) to(id PeerID, now time.Time) *flight {
	f := q.flight[id]
	if f == nil {
		f = &flight{since: now}
		q.flight[id] = f
	}
	return f
}

// urgents counts the urgent pieces that a peer waits for.
func (q *Queue) urgents(id PeerID) (n int) {
	for _, w := range q.waiting {
		if w.To == id && w.Degree == Urgent {
			n++
		}
	}
	for _, b := range q.active {
		if b.To == id && b.Degree == Urgent {
			n++
		}
	}
	return n
}

// Cancel takes a piece out and says whether it was still waiting.
func (q *Queue) Cancel(to PeerID, i piece.Index) bool {
	_, ok := q.take(func(w Job) bool { return w.To == to && w.Piece == i })
	return ok
}

// Gone forgets a peer.
func (q *Queue) Gone(id PeerID) {
	q.waiting = slices.DeleteFunc(q.waiting, func(w Job) bool { return w.To == id })
	q.active = slices.DeleteFunc(q.active, func(b *Block) bool { return b.To == id })
	if f := q.flight[id]; f != nil && !f.silent {
		q.total -= f.bytes
	}
	delete(q.flight, id)
	delete(q.turns, id)
}

// Drop gives up a piece that is under way.
func (q *Queue) Drop(j Job) {
	q.active = slices.DeleteFunc(q.active, func(b *Block) bool { return b.To == j.To && b.Piece == j.Piece })
}

// Next returns the block to send next, and counts it as sent: of an urgent
// piece, else of those under way in turn, else of the piece that waits longest
// and whose peer takes what it is sent.
func (q *Queue) Next(now time.Time) (Block, bool) {
	if j, ok := q.take(func(w Job) bool { return w.Degree == Urgent && q.room(w.To, q.limit) }); ok {
		q.active = append(q.active, &Block{Job: j})
	}
	for k, b := range q.active {
		if b.Degree == Urgent && q.room(b.To, q.limit) {
			return q.advance(k, now), true
		}
	}
	if q.total >= q.limit {
		return Block{}, false
	}
	each := q.each()
	q.start(each, now)
	for k, b := range q.active {
		if q.roomy(b.Job, each, now) && (b.Degree > Rest || !q.busy(b.To, Soon)) {
			return q.advance(k, now), true
		}
	}
	return Block{}, false
}

// start puts a piece under way, if there is a slot.
func (q *Queue) start(each int64, now time.Time) {
	running := q.running()
	if running >= slots {
		return
	}
	j, ok := q.takeFair(func(w Job) bool { return q.roomy(w, each, now) && !q.busy(w.To, w.Degree) })
	if !ok && running == 0 {
		j, ok = q.takeFair(func(w Job) bool { return q.roomy(w, each, now) })
	}
	if ok {
		q.active = append(q.active, &Block{Job: j})
	}
}

// running counts the pieces under way to peers that did not fall silent: those
// that did take no slot from others.
func (q *Queue) running() (n int) {
	for _, b := range q.active {
		if f := q.flight[b.To]; f == nil || !f.silent {
			n++
		}
	}
	return n
}

// busy says whether a piece of a degree, or of a higher one, is under way to a
// peer.
func (q *Queue) busy(id PeerID, least Degree) bool {
	return slices.ContainsFunc(q.active, func(b *Block) bool { return b.To == id && b.Degree >= least })
}

// advance takes the next block of a piece under way, whose next turn comes
// after the others', unless it is urgent: of such pieces one comes after the
// other, or all would come late.
func (q *Queue) advance(k int, now time.Time) Block {
	b := q.active[k]
	b.Len = min(BlockLength, q.layout.Size(b.Piece)-b.Off)
	out := *b
	b.Off += b.Len
	if done := b.Off >= q.layout.Size(b.Piece); done || b.Degree < Urgent {
		q.active = slices.Delete(q.active, k, k+1)
		if !done {
			q.active = append(q.active, b)
		}
	}
	f := q.to(b.To, now)
	if f.bytes == 0 {
		f.since = now
	}
	f.bytes += out.Len
	if !f.silent {
		q.total += out.Len
	}
	return out
}

// takeFair takes the piece of the peer whose turn is longest ago, of those the
// one that goes before the others: who asks for more than others, or calls it
// more urgent, does not get more than they.
func (q *Queue) takeFair(ok func(Job) bool) (Job, bool) {
	best := -1
	before := func(w, than Job) bool {
		a, b := q.turns[w.To], q.turns[than.To]
		return a < b || a == b && w.Degree > than.Degree
	}
	for k, w := range q.waiting {
		if (best < 0 || before(w, q.waiting[best])) && ok(w) {
			best = k
		}
	}
	if best < 0 {
		return Job{}, false
	}
	j := q.waiting[best]
	q.waiting = slices.Delete(q.waiting, best, best+1)
	q.turn++
	q.turns[j.To] = q.turn
	return j, true
}

func (q *Queue) take(ok func(Job) bool) (Job, bool) {
	k := slices.IndexFunc(q.waiting, ok)
	if k < 0 {
		return Job{}, false
	}
	j := q.waiting[k]
	q.waiting = slices.Delete(q.waiting, k, k+1)
	return j, true
}

// each is how much may be under way to one peer: bursts that meet at a
// receiver's link are lost there. It is enough for the next block to be on its
// way while the one before is acknowledged.
func (q *Queue) each() int64 {
	if q.alone() {
		return min(q.limit, max(int64(q.rate()*aloneTime.Seconds()), aloneFlight))
	}
	return max(q.limit/slots, minEach)
}

// alone says whether all that is to be sent goes to one peer.
func (q *Queue) alone() bool {
	var first PeerID
	other := func(id PeerID) bool {
		if first == 0 {
			first = id
		}
		return id != first
	}
	return !slices.ContainsFunc(q.active, func(b *Block) bool { return other(b.To) }) &&
		!slices.ContainsFunc(q.waiting, func(w Job) bool { return other(w.To) })
}

// rate is how many bytes a second were sent when it went best, not long ago.
func (q *Queue) rate() float64 { return slices.Max(q.rates[:]) }

// room says whether a peer can be sent more.
func (q *Queue) room(id PeerID, most int64) bool {
	f := q.flight[id]
	return f == nil || !f.silent && f.bytes < most
}

// roomy says whether a peer can be sent more that is not urgent.
func (q *Queue) roomy(j Job, each int64, now time.Time) bool {
	if f := q.flight[j.To]; f != nil && now.Before(f.until) {
		if f.calm == 0 && j.Degree == Rest {
			return false
		}
		if q.alone() {
			each = q.limit
		}
		each = min(each, max(f.calm, 1))
	}
	return q.room(j.To, each)
}

// Idle says whether nothing waits to be sent.
func (q *Queue) Idle() bool { return len(q.waiting)+len(q.active) == 0 }

// Tick finds the peers that fell silent, and those that asked for calm long enough
// ago, and says whether there are new ones: then Next may have a block that it did
// not have before.
func (q *Queue) Tick(now time.Time) (freed bool) {
	for _, f := range q.flight {
		if !f.until.IsZero() && !now.Before(f.until) {
			f.until, freed = time.Time{}, true
		}
		if f.bytes > 0 && !f.silent && now.Sub(f.since) > silence {
			f.silent, freed = true, true
			q.total -= f.bytes
		}
	}
	return freed
}

// Acked takes note of bytes that came, and adapts how much is under way: about
// what is sent in a short time, so that what is urgent comes soon.
func (q *Queue) Acked(from PeerID, n int64, now time.Time) {
	f := q.flight[from]
	if f == nil || n <= 0 {
		return
	}
	if f.silent {
		f.silent = false
		q.total += f.bytes
	}
	n = min(n, f.bytes)
	f.bytes -= n
	f.since = now
	q.total -= n
	q.acked += n
	span := now.Sub(q.since)
	if span < flightEvery {
		return
	}
	if span < 2*flightEvery {
		q.rates[q.next] = float64(q.acked) / span.Seconds()
		q.next = (q.next + 1) % bestOf
		want, least := flightTime, int64(minFlight)
		if now.Sub(q.urgent) < urgentLinger {
			want, least = urgentFlight, minUrgent
		}
		q.limit = min(max(int64(q.rate()*want.Seconds()), least), maxFlight)
	}
	q.since, q.acked = now, 0
}
