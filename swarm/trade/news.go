package trade

import (
	"time"

	"dcfs/cache/piece"
)

const (
	// toldAtOnce is how many peers learn of a new piece at once. The others hear of
	// it later and together with others, by the library: a message to each of them
	// for each piece costs more than the piece itself, and this host can send it to
	// a few only, who pass it on.
	toldAtOnce = 12
	// newsPieces is of how many pieces one message tells, unless newsTime is over
	// before so many came: on slow links they come one by one, and messages of one
	// piece each cost more processor time than the pieces.
	newsPieces = 4
	newsTime   = 100 * time.Millisecond
)

// news is what this host has to tell.
type news struct {
	ring  []*peer // in the order in which they came
	turn  int     // whose turn it is to hear first
	last  bool    // everything is out: what comes now is the end, and all hear of it
	fresh []piece.Index
	since time.Time               // when the first of fresh came
	taken map[*peer][]piece.Index // of peers that steer and wait to hear that
}

func (w *news) joined(q *peer) { w.ring = append(w.ring, q) }

func (w *news) gone(q *peer) {
	for k, r := range w.ring {
		if r == q {
			w.ring = append(w.ring[:k], w.ring[k+1:]...)
			break
		}
	}
	delete(w.taken, q)
}

// add takes note of piece i, which came from one.
func (w *news) add(i piece.Index, from *peer, now time.Time) {
	if from.who.Steers {
		w.taken[from] = append(w.taken[from], i)
	}
	if len(w.fresh) == 0 {
		w.since = now
	}
	w.fresh = append(w.fresh, i)
}

// send tells at once those whose offers were taken, and, when there is enough to
// tell, those whose turn it is.
func (w *news) send(p *Plan) {
	for q := range p.each() {
		w.tell(p, q, w.taken[q])
	}
	clear(w.taken)
	if len(w.fresh) == 0 || !w.last && len(w.fresh) < newsPieces && p.now.Sub(w.since) < newsTime {
		return
	}
	told := 0
	for range w.ring {
		w.turn = (w.turn + 1) % len(w.ring)
		q := w.ring[w.turn]
		var lacks []piece.Index
		for _, i := range w.fresh {
			if !q.has.has(i) {
				lacks = append(lacks, i)
			}
		}
		if len(lacks) == 0 {
			continue
		}
		w.tell(p, q, lacks)
		if told++; told == toldAtOnce && !w.last {
			break
		}
	}
	w.fresh = w.fresh[:0]
}

// tell tells a peer of pieces.
func (w *news) tell(p *Plan, q *peer, pieces []piece.Index) {
	for len(pieces) > 0 {
		n := min(len(pieces), maxNews)
		p.out = append(p.out, Send{q.id, Message{Kind: Have, Pieces: pieces[:n:n]}})
		pieces = pieces[n:]
	}
}
