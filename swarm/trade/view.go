package trade

import (
	"time"

	"dcfs/cache/piece"
)

// View is what one peer was asked for and has not sent yet.
type View struct {
	Asked map[piece.Index]time.Time // since when
	Owed  int64                     // bytes of these that have not come
	Came  time.Time                 // when its last block came; zero for never
	has   func(piece.Index) bool
}

// Has reports whether the peer had piece i when it was looked at; it is for the
// goroutine that drives the plan.
func (v View) Has(i piece.Index) bool { return v.has != nil && v.has(i) }

// Look tells what is asked of a peer; nothing of one that is not there.
func (p *Plan) Look(id PeerID) View {
	q := p.peers[id]
	if q == nil {
		return View{}
	}
	v := View{Asked: make(map[piece.Index]time.Time, len(q.asked)), Owed: q.bytes, Came: q.came, has: q.has.has}
	for i, a := range q.asked {
		v.Asked[i] = a.since
	}
	return v
}
