package swarm

import (
	"time"

	"github.com/anacrolix/torrent"

	"dcfs/cache/piece"
)

// lending leaves pieces to the library while stock clients have some that are
// missing here: those that no dcfs host has, and a few more, or all of them when
// there are no dcfs hosts. Otherwise the library asks nobody for anything.
//
// The library makes no connections for who has nothing and wants nothing, so at
// first it is told that the keeper is wanted, one piece of which it never learns
// that a dcfs host has it; see hide. lending belongs to exchange.run.
type lending struct {
	looked time.Time
	mode   lendMode
	lent   map[piece.Index]bool // in mode lendSome
	web    map[piece.Index]bool // left to the web seeds, in all modes
	urge   []piece.Urgency
	told   []piece.Urgency // what the library knows
	keeper piece.Index     // the last piece
	kept   bool            // it has served
}

func newLending(n int) lending {
	return lending{web: make(map[piece.Index]bool), urge: make([]piece.Urgency, n), told: make([]piece.Urgency, n), keeper: piece.Index(max(n-1, 0))}
}

type lendMode int

const (
	lendNone lendMode = iota // the exchange fetches everything
	lendSome
	lendAll

	lendEach  = 8 // pieces for each stock client that has some
	lendEvery = 200 * time.Millisecond
)

// demanded has a piece that somebody waits for fetched from where it is to be had
// soonest, before settle looks again.
func (l *lending) demanded(s *Swarm, e *exchange, i piece.Index) {
	if e.plan.Peers() == 0 {
		l.looked = time.Time{}
		l.settle(s, e)
	}
	if lend := e.plan.Copies(i) == 0; l.mode == lendSome && lend != l.lent[i] && !l.web[i] {
		if lend {
			l.lent[i] = true
		} else {
			delete(l.lent, i)
		}
		e.plan.Lend(i, lend)
	}
}

// settle looks at who is there, and changes what is left to whom.
func (l *lending) settle(s *Swarm, e *exchange) {
	now := time.Now()
	if now.Sub(l.looked) < lendEvery {
		return
	}
	l.looked = now
	if s.t.BytesMissing() == 0 {
		return
	}
	stock := e.stock(s.t)
	mode := lendNone
	switch {
	case stock > 0 && e.plan.Peers() == 0:
		mode = lendAll
	case stock > 0:
		mode = lendSome
	}
	if mode != l.mode {
		l.change(s, e, mode)
	}
	if !l.kept && s.t.BytesCompleted() > 0 {
		l.kept = true // who has something needs no keeper
		l.apply(s, e, l.keeper)
	}
	if mode == lendSome {
		l.replenish(s, e, stock*lendEach)
	}
}

// stock counts the connected clients that have pieces and do not speak the
// extension.
func (e *exchange) stock(t *torrent.Torrent) (n int) {
	for _, c := range t.PeerConns() {
		if _, speaks := e.speaks.Load(c); !speaks && c.Stats().RemotePieceCount > 0 {
			n++
		}
	}
	return n
}

func (l *lending) change(s *Swarm, e *exchange, mode lendMode) {
	e.log.Debug("pieces are left to the library", "mode", int(mode))
	l.mode, l.lent = mode, make(map[piece.Index]bool)
	for i := range l.urge { // what is read first
		if l.urge[i] == piece.Demand {
			l.apply(s, e, piece.Index(i))
		}
	}
	for i := range l.urge {
		e.plan.Lend(piece.Index(i), l.lends(e, piece.Index(i)))
		l.apply(s, e, piece.Index(i))
	}
	e.plan.Fill()
}

// regard looks again who fetches the keeper, after a dcfs host came or went.
func (l *lending) regard(s *Swarm, e *exchange) {
	if l.mode == lendAll {
		e.plan.Lend(l.keeper, l.lends(e, l.keeper))
		l.apply(s, e, l.keeper)
		e.plan.Fill()
	}
}

// keeps says whether piece i is one that dcfs hosts alone fetch from each other.
func (l *lending) keeps(e *exchange, i piece.Index) bool {
	return i == l.keeper && e.plan.Peers() > 0
}

// lends says whether somebody else than the exchange fetches piece i.
func (l *lending) lends(e *exchange, i piece.Index) bool {
	return l.web[i] || l.mode == lendAll && !l.keeps(e, i) || l.mode == lendSome && l.lent[i]
}

// viaWeb leaves piece i to the web seeds, or takes it back.
func (l *lending) viaWeb(s *Swarm, e *exchange, i piece.Index, begins bool) {
	if begins {
		l.web[i] = true
	} else {
		delete(l.web, i)
	}
	e.plan.Lend(i, l.lends(e, i))
	l.apply(s, e, i)
	if !begins {
		e.plan.Fill()
	}
}

// apply tells the library how urgent piece i is.
func (l *lending) apply(s *Swarm, e *exchange, i piece.Index) {
	u := l.urge[i]
	switch {
	case l.web[i], l.mode == lendNone && (l.kept || i != l.keeper), l.mode == lendSome && !l.lent[i], l.mode == lendAll && l.keeps(e, i):
		u = piece.None
	}
	if u != l.told[i] {
		l.told[i] = u
		s.setPriority(i, u)
	}
}

// replenish lends pieces until count are lent besides those that no dcfs host
// has.
func (l *lending) replenish(s *Swarm, e *exchange, count int) {
	few := 0
	for i := range l.lent {
		switch {
		case e.store.Have(i):
			delete(l.lent, i)
		case e.plan.Copies(i) == 0:
		case i == l.keeper: // the library does not see these copies
			delete(l.lent, i)
			e.plan.Lend(i, l.lends(e, i))
			l.apply(s, e, i)
		default:
			few++
		}
	}
	for k := len(l.urge) - 1; k >= 0; k-- { // from behind: the exchange begins elsewhere
		i := piece.Index(k)
		if l.urge[i] == piece.None || l.lent[i] || l.web[i] || e.plan.Asked(i) || e.store.Have(i) {
			continue
		}
		if e.plan.Copies(i) > 0 {
			if few >= count || i == l.keeper {
				continue
			}
			few++
		}
		l.lent[i] = true
		e.plan.Lend(i, true)
		l.apply(s, e, i)
	}
}
