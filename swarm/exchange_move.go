package swarm

import (
	"bytes"
	"context"
	"crypto/sha1"
	"fmt"
	"sync"
	"time"

	"github.com/anacrolix/torrent"

	"dcfs/cache/piece"
	"dcfs/swarm/trade"
)

const (
	// Each block: a sender may have no more than one under way to each of many.
	ackEvery  = trade.BlockLength
	maxUnask  = 1 << 10 // blocks that nobody asked for, of which half are forgotten every forgetUnask
	verifiers = 2
)

// take handles a block that came.
func (e *exchange) take(id trade.PeerID, m trade.Message) {
	l, n := e.conns[id], int64(len(m.Data))
	want, whole := e.plan.Received(id, m.Piece, m.Off, n)
	e.received.receivedFrom(l.conn, n, want)
	l.unacked += n
	if l.unacked >= ackEvery || m.Off+n == e.layout.Size(m.Piece) {
		e.write(l.conn, trade.Message{Kind: trade.Ack, Off: l.unacked})
		l.unacked = 0
	}
	if want {
		e.node.trail.note(&l.conn.Peer, m.Piece, int(n))
	} else {
		if l.unasked++; l.unasked > maxUnask {
			e.node.bans.ban(ip(l.conn), "it sends what it was not asked for", banFor)
			_ = l.conn.Close() // it never fails
		}
		return
	}
	if err := e.store.WriteChunk(m.Piece, m.Data, m.Off); err != nil {
		e.log.Error("the piece store refused a chunk", "cause", err)
		e.plan.Verified(m.Piece, false)
		return
	}
	if whole {
		e.toCheck.push(check{m.Piece, l.conn})
	}
}

// check is a piece that is to be hashed, and who sent it.
type check struct {
	piece piece.Index
	from  *torrent.PeerConn
}

// backlog is what waits to be hashed. The plan's MaxAsked bounds it.
type backlog struct {
	mu    sync.Mutex
	list  []check
	ready chan struct{}
}

func newBacklog() *backlog { return &backlog{ready: make(chan struct{}, 1)} }

func (b *backlog) push(c check) {
	b.mu.Lock()
	b.list = append(b.list, c)
	b.mu.Unlock()
	signal(b.ready)
}

func (b *backlog) pop(ctx context.Context) (check, bool) {
	for {
		b.mu.Lock()
		if len(b.list) > 0 {
			c := b.list[0]
			b.list = b.list[1:]
			if len(b.list) > 0 {
				signal(b.ready) // for the next verifier
			}
			b.mu.Unlock()
			return c, true
		}
		b.mu.Unlock()
		select {
		case <-ctx.Done():
			return check{}, false
		case <-b.ready:
		}
	}
}

// verify hashes pieces until ctx ends. It may wait for the disk.
func (e *exchange) verify(ctx context.Context) {
	for {
		c, ok := e.toCheck.pop(ctx)
		if !ok {
			return
		}
		sum, err := e.store.Verify(c.piece)
		if err == nil && !bytes.Equal(sum[:], e.sums[int(c.piece)*sha1.Size:][:sha1.Size]) {
			e.store.Drop(c.piece)
			e.ban(c)
		}
		e.post(event{kind: checked, piece: c.piece, good: e.store.Have(c.piece)})
	}
}

// ban ends the exchange with who sent a wrong piece. The whole piece came from
// one peer, so it is clear who that was.
func (e *exchange) ban(c check) {
	e.node.bans.ban(ip(c.from), fmt.Sprintf("it sent piece %d, which is wrong", c.piece), banForWrong)
	_ = c.from.Close() // it never fails
}

// deliver sends what is asked for until ctx ends.
func (e *exchange) deliver(ctx context.Context) {
	buf, message := make([]byte, trade.BlockLength), make([]byte, 0, trade.BlockLength+64)
	for {
		e.up.Lock()
		b, ok := e.queue.Next(time.Now())
		conn := e.open[b.To]
		e.up.Unlock()
		if ok && conn != nil {
			e.sendBlock(conn, b, buf[:b.Len], message)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-e.upWake:
		}
	}
}

// sendBlock sends a block; the memory of buf and of message is its own meanwhile.
func (e *exchange) sendBlock(conn *torrent.PeerConn, b trade.Block, buf, message []byte) {
	if err := e.store.ReadChunk(b.Piece, buf, b.Off); err != nil {
		e.log.Debug("a piece cannot be sent", "piece", int(b.Piece), "cause", err)
		e.up.Lock()
		e.queue.Drop(b.Job)
		e.queue.Acked(b.To, b.Len, time.Now())
		e.up.Unlock()
		e.write(conn, trade.Message{Kind: trade.Reject, Piece: b.Piece})
		return
	}
	e.received.sentTo(conn, b.Len)
	e.writeEncoded(conn, trade.Message{Kind: trade.Data, Piece: b.Piece, Off: b.Off, Data: buf}.Append(message))
}
