package swarm

import (
	"time"

	"github.com/anacrolix/torrent"

	"dcfs/cache/piece"
)

// lending leaves pieces to the library while stock clients have some that are
// missing here: all of them when there are no dcfs hosts, else those that no
// dcfs host has, and a few more. Without stock clients it is told that one piece
// is wanted, because it makes no connections when there is none. It asks no
// dcfs host for anything; see readMessage. It belongs to exchange.run.
type lending struct {
	looked time.Time
	mode   lendMode
	lent   map[piece.Index]bool // in mode lendSome
	urge   []piece.Urgency
	told   []piece.Urgency // what the library knows
	keeper piece.Index     // in mode lendNone the piece that it is told of
}

func newLending(n int) lending {
	return lending{urge: make([]piece.Urgency, n), told: make([]piece.Urgency, n)}
}

type lendMode int

const (
	lendNone lendMode = iota // the exchange fetches everything
	lendSome
	lendAll

	lendEach  = 8 // pieces for each stock client that has some
	lendEvery = 200 * time.Millisecond
)

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
	if l.mode == lendNone && e.store.Have(l.keeper) {
		l.keep(s, e)
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
	for i := range l.urge {
		e.plan.Lend(piece.Index(i), mode == lendAll)
		l.apply(s, e, piece.Index(i))
	}
	e.plan.Fill()
}

// apply tells the library how urgent piece i is.
func (l *lending) apply(s *Swarm, e *exchange, i piece.Index) {
	if l.mode == lendNone && l.urge[l.keeper] == piece.None && l.urge[i] != piece.None && !e.store.Have(i) {
		l.keeper = i
	}
	u := l.urge[i]
	if l.mode == lendSome && !l.lent[i] || l.mode == lendNone && i != l.keeper {
		u = piece.None
	}
	if u != l.told[i] {
		l.told[i] = u
		s.setPriority(i, u)
	}
}

// keep chooses another keeper.
func (l *lending) keep(s *Swarm, e *exchange) {
	before := l.keeper
	for i, u := range l.urge {
		if u != piece.None && !e.store.Have(piece.Index(i)) {
			l.keeper = piece.Index(i)
			break
		}
	}
	l.apply(s, e, before)
	l.apply(s, e, l.keeper)
}

// replenish lends pieces until count are lent besides those that no dcfs host
// has.
func (l *lending) replenish(s *Swarm, e *exchange, count int) {
	few := 0
	for i := range l.lent {
		if e.store.Have(i) {
			delete(l.lent, i)
		} else if e.plan.Copies(i) > 0 {
			few++
		}
	}
	for k := len(l.urge) - 1; k >= 0; k-- { // from behind: the exchange begins elsewhere
		i := piece.Index(k)
		if l.urge[i] == piece.None || l.lent[i] || e.plan.Asked(i) || e.store.Have(i) {
			continue
		}
		if e.plan.Copies(i) > 0 {
			if few >= count {
				continue
			}
			few++
		}
		l.lent[i] = true
		e.plan.Lend(i, true)
		l.apply(s, e, i)
	}
}
