package swarm

import (
	"time"

	"github.com/anacrolix/torrent"

	"dcfs/cache/piece"
	"dcfs/swarm/trade"
)

// lookTime is how long somebody who asks what the plan asks of whom waits for
// it. The plan handles events in far less.
const lookTime = 250 * time.Millisecond

// views are what the plan asks of each connection.
type views map[*torrent.PeerConn]view

type view struct {
	trade.View
	keeper *withKeeper // it has the piece that the library does not know it has; nil if not
}

// views is for run.
func (e *exchange) views() views {
	out := make(views, len(e.conns))
	for id, l := range e.conns {
		v := view{View: e.plan.Look(id)}
		if v.Has(e.lend.keeper) {
			v.keeper = &withKeeper{piece: uint32(e.lend.keeper)}
		}
		out[l.conn] = v
	}
	return out
}

// looked asks run for its views: none when the exchange has ended, or has no
// time to answer. It is safe for concurrent use.
func (e *exchange) looked() views {
	if e == nil {
		return nil
	}
	reply := make(chan views, 1) // run does not wait for who gave up
	timer := time.NewTimer(lookTime)
	defer timer.Stop()
	select {
	case e.look <- reply:
	case <-e.done:
		return nil
	case <-timer.C:
		return nil
	}
	select {
	case v := <-reply:
		return v
	case <-timer.C:
		return nil
	}
}

// asked lists whom the plan asks for piece i.
func (all views) asked(i piece.Index) (out []piece.Ask) {
	for c, v := range all {
		if since, ok := v.Asked[i]; ok {
			out = append(out, piece.Ask{Peer: c.RemoteAddr.String(), Since: since, Blocks: 1})
		}
	}
	return out
}

// describe adds to a link what the plan asks over it.
func (v view) describe(l *Link) {
	l.Asked += int((v.Owed + trade.BlockLength - 1) / trade.BlockLength)
	if v.Came.After(l.Sent) {
		l.Sent = v.Came
	}
	for i, since := range v.Asked {
		l.Since = earlier(l.Since, since)
		l.asked[i] = earlier(l.asked[i], since)
	}
	if v.keeper != nil {
		v.keeper.rest, l.has = l.has, v.keeper
	}
}

// withKeeper is what the library knows that a peer has, and the keeper; see hide.
type withKeeper struct {
	rest  interface{ Contains(uint32) bool }
	piece uint32
}

func (k *withKeeper) Contains(i uint32) bool { return i == k.piece || k.rest.Contains(i) }
