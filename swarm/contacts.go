package swarm

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"
)

// contacts remembers where the connected peers listen. The library knows a peer
// that dialled us only by the address it dialled from; offered the address
// where that peer listens, it would dial it again every time.
type contacts struct{ ports sync.Map } // *torrent.PeerConn to its port, an int

// install hooks the contacts into the library, after the other hooks.
func (k *contacts) install(c *torrent.Callbacks) {
	next := c.ReadExtendedHandshake
	c.ReadExtendedHandshake = func(p *torrent.PeerConn, m *pp.ExtendedHandshakeMessage) {
		k.ports.Store(p, m.Port)
		if next != nil {
			next(p, m)
		}
	}
	c.PeerConnClosed = func(p *torrent.PeerConn) { k.ports.Delete(p) }
}

// connected returns where the peers listen that there is a connection with.
func (s *Swarm) connected() map[netip.AddrPort]bool {
	out := make(map[netip.AddrPort]bool)
	for _, c := range s.t.PeerConns() {
		for _, a := range s.addresses(&c.Peer) {
			out[a] = true
		}
	}
	return out
}

// addresses returns where a peer speaks from and where it listens, as far as
// that is known.
func (s *Swarm) addresses(p *torrent.Peer) []netip.AddrPort {
	a, err := netip.ParseAddrPort(p.RemoteAddr.String())
	if err != nil {
		return nil
	}
	ip := a.Addr().Unmap()
	out := []netip.AddrPort{netip.AddrPortFrom(ip, a.Port())}
	if c, ok := p.TryAsPeerConn(); ok {
		if port, ok := s.node.contacts.ports.Load(c); ok {
			out = append(out, netip.AddrPortFrom(ip, uint16(port.(int))))
		}
	}
	return out
}

// add offers peers to the library, which dials those that it likes.
func (s *Swarm) add(source torrent.PeerSource, list []netip.AddrPort) {
	if len(list) == 0 {
		return
	}
	connected, now := s.connected(), time.Now()
	var infos []torrent.PeerInfo
	for _, a := range list {
		if !connected[a] && !s.node.bans.has(a.Addr().String()) && !s.hedge.rests(a, now) {
			infos = append(infos, torrent.PeerInfo{Addr: net.TCPAddrFromAddrPort(a), Source: source})
		}
	}
	s.t.AddPeers(infos)
}
