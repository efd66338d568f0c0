package main

import (
	"time"

	"dcfs/cache/piece"
	"dcfs/swarm/trade"
)

// What happens.
const (
	ticks   uint8 = iota // to looks after what takes long
	says                 // a small message comes to to
	leaves               // a block comes to the link out of a rack
	enters               // to the link into a rack
	arrives              // to its receiver's link
	whole                // it is there
)

// event is what happens at a time: a message or a block from a peer of to.
type event struct {
	at   time.Duration
	seq  uint64
	tail time.Duration // when the last of a block comes, where its first is now
	to   int32
	from trade.PeerID // as to knows it
	kind uint8
	msg  trade.Kind
	i    piece.Index
	off  int64 // of a block; the bytes of an acknowledgement
	n    int64
	news []piece.Index
}

// events is a heap, by time and then by order of making.
type events struct {
	heap []event
	seq  uint64
}

func (e *events) less(a, b int) bool {
	x, y := &e.heap[a], &e.heap[b]
	return x.at < y.at || x.at == y.at && x.seq < y.seq
}

func (e *events) push(ev event) {
	e.seq++
	ev.seq = e.seq
	e.heap = append(e.heap, ev)
	for k := len(e.heap) - 1; k > 0; {
		up := (k - 1) / 4
		if !e.less(k, up) {
			return
		}
		e.heap[k], e.heap[up] = e.heap[up], e.heap[k]
		k = up
	}
}

func (e *events) pop() event {
	first, last := e.heap[0], len(e.heap)-1
	e.heap[0] = e.heap[last]
	e.heap[last] = event{}
	e.heap = e.heap[:last]
	for k := 0; ; {
		least := k
		for c := 4*k + 1; c <= 4*k+4 && c < last; c++ {
			if e.less(c, least) {
				least = c
			}
		}
		if least == k {
			return first
		}
		e.heap[k], e.heap[least] = e.heap[least], e.heap[k]
		k = least
	}
}

func (w *world) at(t time.Duration, ev event) {
	ev.at = t
	w.events.push(ev)
}

// run goes on until all hosts are done, or the virtual time is up; it says which.
func (w *world) run(most time.Duration) bool {
	for w.left > 0 {
		ev := w.events.pop()
		if w.now = ev.at; w.now > most {
			return false
		}
		h := w.nodes[ev.to]
		switch ev.kind {
		case leaves, enters, arrives:
			w.move(h, ev)
			continue
		}
		h.plan.Clock(epoch.Add(w.now))
		switch ev.kind {
		case ticks:
			w.tick(h, ev)
		case says:
			w.hear(h, ev)
		case whole:
			w.take(h, ev)
		}
		w.flush(h)
	}
	return true
}

func (w *world) tick(h *node, ev event) {
	h.plan.Tick()
	h.queue.Tick(epoch.Add(w.now))
	if len(h.fresh) > 0 && (h.plan.Idle() || w.now-h.told >= tell) {
		for id := range h.links {
			w.say(h, trade.PeerID(id+1), trade.Message{Kind: trade.Have, Pieces: h.fresh})
		}
		h.fresh, h.told = nil, w.now
	}
	w.at(w.now+tick, ev)
	w.pump(h)
}

// flush sends what the plan wants to go out.
func (w *world) flush(h *node) {
	for _, s := range h.plan.Take() {
		w.say(h, s.To, s.Message)
	}
}

// say sends a small message. It takes next to nothing of the links, but waits
// behind what is on them.
func (w *world) say(h *node, id trade.PeerID, m trade.Message) {
	l := h.links[id-1]
	t := w.now + w.latency + h.up.backlog(w.now, w.queue) + w.nodes[l.to].down.backlog(w.now, w.queue)
	w.at(t, event{kind: says, to: l.to, from: l.back, msg: m.Kind, i: m.Piece, off: m.Off, news: m.Pieces})
}

// pump puts blocks on a host's link while the queue gives some.
func (w *world) pump(h *node) {
	for {
		b, ok := h.queue.Next(epoch.Add(w.now))
		if !ok {
			return
		}
		l := h.links[b.To-1]
		h.sentTo[b.To] += b.Len
		first, last := h.up.pass(w.now, w.now, b.Len)
		kind := arrives
		if to := w.nodes[l.to]; w.racks > 0 && to.rack != h.rack {
			if kind = leaves; h.rack < 0 {
				kind = enters
			}
		}
		w.at(first+w.latency, event{kind: kind, tail: last + w.latency, to: l.to, from: l.back, i: b.Piece, off: b.Off, n: b.Len})
	}
}

// move takes a block over one more link.
func (w *world) move(h *node, ev event) {
	switch ev.kind {
	case leaves:
		from := w.nodes[h.links[ev.from-1].to]
		first, last := w.out[from.rack].pass(ev.at, ev.tail, ev.n)
		if ev.kind, ev.tail = enters, last; h.rack < 0 {
			ev.kind = arrives
		}
		w.at(first, ev)
	case enters:
		w.cross[h.rack] += ev.n
		first, last := w.in[h.rack].pass(ev.at, ev.tail, ev.n)
		ev.kind, ev.tail = arrives, last
		w.at(first, ev)
	case arrives:
		_, last := h.down.pass(ev.at, ev.tail, ev.n)
		ev.kind = whole
		w.at(last, ev)
	}
}

// take handles a block that came.
func (w *world) take(h *node, ev event) {
	w.say(h, ev.from, trade.Message{Kind: trade.Ack, Off: ev.n})
	_, done := h.plan.Received(ev.from, ev.i, ev.off, ev.n)
	if !done {
		return
	}
	h.have[ev.i] = true
	h.fresh = append(h.fresh, ev.i)
	h.plan.Verified(ev.i, true)
	if h.count++; h.count == len(h.have) {
		h.done = w.now + w.end
		w.left--
	}
}

// hear handles a message, as package swarm does.
func (w *world) hear(h *node, ev event) {
	now := epoch.Add(w.now)
	switch ev.msg {
	case trade.Offer:
		h.plan.Offered(ev.from, ev.i)
	case trade.Open:
		h.plan.Opened(ev.from)
	case trade.Want:
		if !h.have[ev.i] || !h.queue.Add(trade.Job{To: ev.from, Piece: ev.i}, now) {
			w.say(h, ev.from, trade.Message{Kind: trade.Reject, Piece: ev.i})
		}
		w.pump(h)
	case trade.Cancel:
		if h.queue.Cancel(ev.from, ev.i) {
			w.say(h, ev.from, trade.Message{Kind: trade.Reject, Piece: ev.i})
		}
	case trade.Reject:
		h.plan.Rejected(ev.from, ev.i)
	case trade.Ack:
		h.queue.Acked(ev.from, ev.off, now)
		w.pump(h)
	case trade.Have:
		h.plan.Sent(ev.from, h.sentTo[ev.from])
		for _, i := range ev.news {
			h.plan.Has(ev.from, i)
		}
	}
}
