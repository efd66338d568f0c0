package trade

import "dcfs/cache/piece"

// toldAtOnce is how many peers learn of a new piece at once. The others hear of
// it later and together with others, by the library: a message to each of them
// for each piece costs more than the piece itself, and this host can send it to
// a few only, who pass it on.
const toldAtOnce = 12

// news is what this host has to tell.
type news struct {
	ring []*peer // in the order in which they came
	turn int     // whose turn it is to hear first
	last bool    // everything is out: what comes now is the end, and all hear of it
	of   map[*peer][]piece.Index
}

func (w *news) joined(q *peer) { w.ring = append(w.ring, q) }

func (w *news) gone(q *peer) {
	for k, r := range w.ring {
		if r == q {
			w.ring = append(w.ring[:k], w.ring[k+1:]...)
			break
		}
	}
	delete(w.of, q)
}

// add has some peers learn of piece i, which came from one: that one if it
// steers, because it waits for that, and those whose turn it is.
func (w *news) add(i piece.Index, from *peer) {
	if from.who.Steers {
		w.of[from] = append(w.of[from], i)
	}
	told := 0
	for range w.ring {
		w.turn = (w.turn + 1) % len(w.ring)
		q := w.ring[w.turn]
		if q.has.has(i) {
			continue
		}
		w.of[q] = append(w.of[q], i)
		if told++; told == toldAtOnce && !w.last {
			break
		}
	}
}

// send tells them.
func (w *news) send(p *Plan) {
	for q := range p.each() {
		pieces := w.of[q]
		for len(pieces) > 0 {
			n := min(len(pieces), maxNews)
			p.out = append(p.out, Send{q.id, Message{Kind: Have, Pieces: pieces[:n]}})
			pieces = pieces[n:]
		}
	}
	clear(w.of)
}
