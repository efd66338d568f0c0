package swarm

import (
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/iplist"
)

// bans knows which addresses a node talks to no more, and why. It is the
// library's list of blocked addresses, too, which is asked about everybody who
// connects or is to be dialled. It is safe for concurrent use.
type bans struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	peers  map[netip.Addr]*conduct
	links  map[*torrent.Peer]netip.Addr // connections that came to a handshake
	pruned time.Time
}

// conduct is what an address did.
type conduct struct {
	until   time.Time // banned until then
	strikes int       // offences that came not long after each other
	seen    time.Time // when it did something last
	visits  float64   // that it may still make
	links   int       // connections with it
}

const (
	banFor      = 10 * time.Minute
	banForWrong = 365 * 24 * time.Hour // who sent wrong bytes will again
	banStrikes  = 3
	strikesFor  = 10 * time.Minute // after which an offence is forgotten

	// Visits: somebody from there connects, or is considered to be dialled, which
	// hosts are every two seconds at most. Many may be behind one address: as many
	// again for each connection with it.
	visitsASecond = 20
	visitsAtOnce  = 600
	banForVisits  = time.Minute

	maxConduct = 8192 // addresses
	pruneEvery = 5 * time.Second
)

func newBans(log *slog.Logger) *bans {
	return &bans{log: log, now: time.Now, peers: make(map[netip.Addr]*conduct), links: make(map[*torrent.Peer]netip.Addr)}
}

// install has the library tell which connections there are.
func (b *bans) install(c *torrent.Callbacks) {
	c.PeerConnAdded = append(c.PeerConnAdded, func(p *torrent.PeerConn) {
		if at, err := netip.ParseAddrPort(p.RemoteAddr.String()); err == nil {
			b.linked(&p.Peer, at.Addr().Unmap())
		}
	})
	c.PeerClosed = append(c.PeerClosed, b.unlinked)
}

func (b *bans) linked(p *torrent.Peer, a netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.of(a, b.now()); c != nil {
		c.links++
		b.links[p] = a
	}
}

func (b *bans) unlinked(p *torrent.Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a, ok := b.links[p]; ok {
		delete(b.links, p)
		b.peers[a].links--
	}
}

// of returns the conduct of an address, nil if too many are known. b.mu is held.
func (b *bans) of(a netip.Addr, now time.Time) *conduct {
	c := b.peers[a]
	if c == nil {
		if len(b.peers) >= maxConduct && now.Sub(b.pruned) >= pruneEvery { // not for each of those that somebody makes up
			b.pruned = now
			maps.DeleteFunc(b.peers, func(_ netip.Addr, c *conduct) bool {
				return c.links == 0 && now.After(c.until) && now.Sub(c.seen) > strikesFor/10
			})
		}
		if len(b.peers) >= maxConduct {
			return nil
		}
		c = &conduct{seen: now, visits: visitsAtOnce}
		b.peers[a] = c
	}
	return c
}

// strike notes an offence. With the third within ten minutes the address is
// banned.
func (b *bans) strike(ip, why string) {
	a, ok := addrOf(ip)
	if !ok {
		return
	}
	now := b.now()
	b.mu.Lock()
	c := b.of(a, now)
	if c == nil {
		b.mu.Unlock()
		return
	}
	if now.Sub(c.seen) > strikesFor {
		c.strikes = 0
	}
	c.strikes, c.seen = c.strikes+1, now
	enough := c.strikes >= banStrikes
	b.mu.Unlock()
	if enough {
		b.ban(ip, why, banFor)
	} else {
		b.log.Debug("a peer offends", "peer", ip, "cause", why)
	}
}

// ban has nobody talk to an address for d.
func (b *bans) ban(ip, why string, d time.Duration) {
	a, ok := addrOf(ip)
	if !ok {
		return
	}
	now := b.now()
	b.mu.Lock()
	c := b.of(a, now)
	fresh := c != nil && now.After(c.until)
	if c != nil {
		c.until, c.strikes = now.Add(d), 0
	}
	b.mu.Unlock()
	if fresh {
		b.log.Warn("a peer's address is banned", "peer", ip, "cause", why, "for", d)
	}
}

// has says whether an address is banned.
func (b *bans) has(ip string) bool {
	a, ok := addrOf(ip)
	if !ok {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.peers[a]
	return c != nil && b.now().Before(c.until)
}

// list returns the banned addresses.
func (b *bans) list() (out []netip.Addr) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for a, c := range b.peers {
		if now.Before(c.until) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

var _ iplist.Ranger = (*bans)(nil)

// NumRanges implements iplist.Ranger.
func (b *bans) NumRanges() int { return len(b.list()) }

// Lookup implements iplist.Ranger: it finds who is banned, and counts a visit.
// Hosts on this machine, which all have one address, may visit as they like. Where
// there is a connection with an address, who comes too often from there waits, and
// nobody else: it may be that of many hosts behind one router. The library's lock may
// be held.
func (b *bans) Lookup(ip net.IP) (r iplist.Range, banned bool) {
	a, ok := netip.AddrFromSlice(ip)
	if a = a.Unmap(); !ok {
		return r, false
	}
	now := b.now()
	b.mu.Lock()
	c := b.of(a, now)
	if c == nil {
		b.mu.Unlock()
		return r, false
	}
	banned = now.Before(c.until)
	several := float64(1 + c.links)
	c.visits = min(c.visits+several*visitsASecond*now.Sub(c.seen).Seconds(), several*visitsAtOnce) - 1
	c.seen = now
	often := c.visits < 0 && !banned && !a.IsLoopback()
	alone := c.links == 0
	if often {
		c.visits = 0
	}
	b.mu.Unlock()
	if often && alone {
		b.ban(a.String(), "it connects again and again", banForVisits)
	}
	return iplist.Range{First: ip, Last: ip, Description: "banned"}, banned || often
}

func addrOf(ip string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(ip)
	return a.Unmap(), err == nil
}
