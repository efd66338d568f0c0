package swarm

import (
	"crypto/sha1"
	"encoding/binary"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"dcfs/cache/piece"
	"dcfs/swarm/trade"
)

// exchangeOf returns the exchange that a connection belongs to, or nil.
func (n *Node) exchangeOf(c *torrent.PeerConn) *exchange {
	t := c.Torrent()
	if t == nil {
		return nil
	}
	e, _ := n.exchanges.Load([20]byte(t.InfoHash()))
	found, _ := e.(*exchange)
	return found
}

// installExchange hooks the exchanges into the library, after the other hooks.
func (n *Node) installExchange(c *torrent.Callbacks) {
	c.PeerConnAdded = append(c.PeerConnAdded, n.offerExtension)
	read := c.ReadMessage
	c.ReadMessage = func(pc *torrent.PeerConn, m *pp.Message) {
		if read != nil {
			read(pc, m)
		}
		n.readMessage(pc, m)
	}
	handshake := c.ReadExtendedHandshake
	c.ReadExtendedHandshake = func(pc *torrent.PeerConn, m *pp.ExtendedHandshakeMessage) {
		handshake(pc, m)
		e := n.exchangeOf(pc)
		if _, speaks := m.M[trade.Extension]; speaks && e != nil {
			if _, again := e.speaks.LoadOrStore(pc, new(speaker)); !again {
				e.post(event{kind: joined, conn: pc, who: whoIs(pc.PeerID, m.M)})
			}
		}
	}
	closed := c.PeerConnClosed
	c.PeerConnClosed = func(pc *torrent.PeerConn) {
		closed(pc)
		if e := n.exchangeOf(pc); e != nil {
			if _, spoke := e.speaks.LoadAndDelete(pc); spoke {
				e.post(event{kind: left, conn: pc})
			}
		}
	}
	c.PeerConnReadExtensionMessage = append(c.PeerConnReadExtensionMessage, n.readTrade)
}

// whoIs reads what a peer says of itself by the names of extensions.
func whoIs(id torrent.PeerID, names map[pp.ExtensionName]pp.ExtensionNumber) trade.Who {
	w := trade.Who{Key: keyOf(id)}
	_, w.Steers = names[trade.Steering]
	for name := range names {
		rack, says := strings.CutPrefix(string(name), trade.InRack)
		if says && len(rack) <= trade.MaxRack && rack > w.Rack { // one of them, if it says two
			w.Rack = rack
		}
	}
	return w
}

// keyOf is what all that are connected with a host know it by.
func keyOf(id torrent.PeerID) uint64 {
	sum := sha1.Sum(id[:])
	return binary.BigEndian.Uint64(sum[:])
}

// offerExtension names the extension in our handshake.
func (n *Node) offerExtension(pc *torrent.PeerConn) {
	own := *pc.LocalLtepProtocolMap
	own.Index = append([]pp.ExtensionName(nil), own.Index...)
	own.AddUserProtocol(trade.Extension)
	if e := n.exchangeOf(pc); e != nil && e.steers {
		own.AddUserProtocol(trade.Steering)
	}
	if e := n.exchangeOf(pc); e != nil && e.rack != "" {
		own.AddUserProtocol(pp.ExtensionName(trade.InRack + e.rack))
	}
	pc.LocalLtepProtocolMap = &own
}

// readMessage notes what a dcfs host says that it has.
func (n *Node) readMessage(pc *torrent.PeerConn, m *pp.Message) {
	if m.Keepalive || m.Type != pp.Have && m.Type != pp.Bitfield && m.Type != pp.HaveAll {
		return
	}
	e := n.exchangeOf(pc)
	if e == nil {
		return
	}
	peer, speaks := e.speaks.Load(pc)
	if !speaks {
		return
	}
	defer func() {
		if hide(m, e.n) {
			peer.(*speaker).keeper.Store(true)
		}
	}()
	switch m.Type {
	case pp.Have:
		e.post(event{kind: hasPiece, conn: pc, piece: piece.Index(m.Index)})
	case pp.Bitfield:
		e.post(event{kind: hasSome, conn: pc, have: slices.Clone(m.Bitfield)})
	case pp.HaveAll:
		e.post(event{kind: hasAll, conn: pc})
	}
}

// hide has the library not learn that a dcfs host has the keeper, the last of n
// pieces, and says whether it has; see lending.
func hide(m *pp.Message, n int) (hidden bool) {
	switch {
	case m.Type == pp.Have && int(m.Index) == n-1:
		m.Keepalive = true // which the library passes over
		return true
	case m.Type == pp.HaveAll:
		m.Type, m.Bitfield = pp.Bitfield, make([]bool, (n+7)/8*8) // whole bytes, as they come
		for i := range n - 1 {
			m.Bitfield[i] = true
		}
		return true
	case m.Type == pp.Bitfield && len(m.Bitfield) >= n:
		hidden = m.Bitfield[n-1]
		m.Bitfield[n-1] = false
	}
	return hidden
}

// readTrade passes a message of the extension on; it keeps the payload, which
// the library makes for each message.
func (n *Node) readTrade(ev torrent.PeerConnReadExtensionMessageEvent) {
	if ev.ExtensionNumber == pp.HandshakeExtendedID {
		return
	}
	name, builtin, err := ev.PeerConn.LocalLtepProtocolMap.LookupId(ev.ExtensionNumber)
	if err != nil || builtin || name != trade.Extension {
		return
	}
	e := n.exchangeOf(ev.PeerConn)
	if e == nil {
		return
	}
	if v, speaks := e.speaks.Load(ev.PeerConn); speaks {
		m, err := trade.Decode(ev.Payload, e.n)
		e.listen(ev.PeerConn, v.(*speaker), m, len(ev.Payload), err)
	}
}

func ip(c *torrent.PeerConn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr.String())
	if err != nil {
		return c.RemoteAddr.String()
	}
	return host
}

func (c *counter) receivedFrom(pc *torrent.PeerConn, n int64, useful bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.came += n
	if useful {
		c.useful += n
		c.down[pc] += n
	}
}

func (c *counter) sentTo(pc *torrent.PeerConn, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent += n
	c.up[pc] += n
}

// sentOf is how many bytes went to a peer.
func (c *counter) sentOf(pc *torrent.PeerConn) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up[pc]
}

func (c *counter) forget(pc *torrent.PeerConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.down, pc)
	delete(c.up, pc)
}

// totals returns what came, what of it was new, and what was sent.
func (c *counter) totals() (came, useful, sent int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.came, c.useful, c.sent
}

// byPeer returns what came from and went to each connection.
func (c *counter) byPeer() (down, up map[*torrent.PeerConn]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.down), maps.Clone(c.up)
}
