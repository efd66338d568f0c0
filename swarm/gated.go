package swarm

import (
	"context"
	"net"
	"net/netip"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/iplist"

	"dcfs/swarm/gate"
)

// listenWith starts the library's client: with its own sockets, or, where not
// everybody may connect, with those of the gate alone.
func (n *Node) listenWith(c *torrent.ClientConfig, addr string) (err error) {
	g := n.gate
	if g.Open() {
		n.client, err = torrent.NewClient(c)
		return err
	}
	lis, err := g.Listen(addr)
	if err != nil {
		return err
	}
	c.DisableTCP = true
	// A second dial with another handshake gains nothing behind the gate.
	c.HeaderObfuscationPolicy = torrent.HeaderObfuscationPolicy{RequirePreferred: true}
	if len(g.Allow) > 0 {
		c.IPBlocklist = blocklist{n.bans, g.Allow}
	}
	if n.client, err = torrent.NewClient(c); err != nil {
		lis.Close()
		return err
	}
	n.lis = lis
	n.client.AddListener(lis)
	n.client.AddDialer(gateDialer{g})
	return nil
}

// gateDialer is how the library dials through a gate.
type gateDialer struct{ gate *gate.Gate }

// Dial implements torrent.Dialer.
func (d gateDialer) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return d.gate.Dial(ctx, addr)
}

// DialerNetwork implements torrent.Dialer. The library takes what is no UDP for
// TCP.
func (gateDialer) DialerNetwork() string { return "tcp" }

// blocklist keeps the library from addresses that are banned, and from such that
// are not allowed, which others may name to it.
type blocklist struct {
	*bans
	allowed gate.Networks
}

// Lookup implements iplist.Ranger.
func (b blocklist) Lookup(ip net.IP) (iplist.Range, bool) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok || !b.allowed.Has(a) {
		return iplist.Range{First: ip, Last: ip}, true
	}
	return b.bans.Lookup(ip)
}
