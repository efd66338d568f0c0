package swarm

import (
	"time"

	"github.com/anacrolix/torrent"

	"dcfs/swarm/trade"
)

// What a peer may say. An honest one's messages go with the blocks that it sends
// and gets; who exceeds this wants to keep us busy.
const (
	wordsASecond = 200
	maxWords     = 8000 // at once
	wordsABlock  = 4    // for each block of data

	maxPending   = 1 << 14   // messages of one peer that wait to be handled
	maxPendBytes = 24 << 20  // of one peer, a little more than it may be asked for
	maxInBytes   = 128 << 20 // of all
	fewPendBytes = 1 << 20   // that a peer may have when all have too many

	forgetUnask = 10 * time.Second
)

// listen passes a message on to run. Who floods, or does not keep to the
// protocol, is cut off. The library's lock is held.
func (e *exchange) listen(c *torrent.PeerConn, sp *speaker, m trade.Message, size int, broken error) {
	e.mu.Lock()
	defer signal(e.wake)
	defer e.mu.Unlock()
	ev := event{kind: said, conn: c, msg: m}
	if sp.pending == 0 {
		e.talk = append(e.talk, sp)
	}
	sp.pending, sp.bytes, e.inBytes = sp.pending+1, sp.bytes+size, e.inBytes+size
	switch {
	case sp.offended:
		return
	case broken != nil:
		ev.kind, ev.why = offended, "it sent a malformed message"
	case sp.pending > maxPending || sp.bytes > maxPendBytes || e.inBytes > maxInBytes && sp.bytes > fewPendBytes:
		ev.kind, ev.why, ev.msg = offended, "it sends faster than anybody can handle", trade.Message{}
	}
	sp.offended = ev.kind == offended
	e.in = append(e.in, ev)
}

// mayTalk says whether a message is to be handled, and closes the connection with
// a peer that says more than honest ones do.
func (e *exchange) mayTalk(l *link, k trade.Kind) bool {
	if k == trade.Data {
		l.words = min(l.words+wordsABlock, maxWords)
		return true
	}
	if sent := e.received.sentOf(l.conn); sent > l.sent {
		l.words += wordsABlock * float64(sent-l.sent) / trade.BlockLength
		l.sent = sent
	}
	now := time.Now()
	l.words = min(l.words+wordsASecond*now.Sub(l.at).Seconds(), maxWords) - 1
	l.at = now
	if l.words >= 0 {
		return true
	}
	e.node.bans.ban(ip(l.conn), "it floods this host with messages", banFor)
	_ = l.conn.Close() // it never fails
	return false
}

// forgive forgets half of what came unasked: some does after each change of plan.
func (e *exchange) forgive(now time.Time) {
	if now.Sub(e.forgave) < forgetUnask {
		return
	}
	e.forgave = now
	for _, l := range e.conns {
		l.unasked /= 2
	}
}
