package swarm

import (
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/anacrolix/torrent/iplist"
)

// bans knows which addresses a node talks to no more, and why. It is the
// library's list of blocked addresses, too, which is asked about everybody who
// connects or is to be dialled. It is safe for concurrent use.
type bans struct {
	log *slog.Logger
	now func() time.Time

	mu    sync.Mutex
	peers map[netip.Addr]*conduct
}

// conduct is what an address did.
type conduct struct {
	until   time.Time // banned until then
	strikes int       // offences that came not long after each other
	seen    time.Time // when it did something last
	visits  float64   // that it may still make
}

const (
	banFor      = 10 * time.Minute
	banForWrong = 365 * 24 * time.Hour // who sent wrong bytes will again
	banStrikes  = 3
	strikesFor  = 10 * time.Minute // after which an offence is forgotten

	// Visits: somebody from there connects, or is considered to be dialled, which
	// hosts are every two seconds at most.
	visitsASecond = 20
	visitsAtOnce  = 600
	banForVisits  = time.Minute

	maxConduct = 8192 // addresses
)

func newBans(log *slog.Logger) *bans {
	return &bans{log: log, now: time.Now, peers: make(map[netip.Addr]*conduct)}
}

// of returns the conduct of an address, nil if too many are known. b.mu is held.
func (b *bans) of(a netip.Addr, now time.Time) *conduct {
	c := b.peers[a]
	if c == nil {
		if len(b.peers) >= maxConduct {
			maps.DeleteFunc(b.peers, func(_ netip.Addr, c *conduct) bool {
				return now.After(c.until) && now.Sub(c.seen) > strikesFor/10
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
// Hosts on this machine, which all have one address, may visit as they like. The
// library's lock may be held.
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
	c.visits = min(c.visits+visitsASecond*now.Sub(c.seen).Seconds(), visitsAtOnce) - 1
	c.seen = now
	often := c.visits < 0 && !banned && !a.IsLoopback()
	b.mu.Unlock()
	if often {
		b.ban(a.String(), "it connects again and again", banForVisits)
	}
	return iplist.Range{First: ip, Last: ip, Description: "banned"}, banned || often
}

func addrOf(ip string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(ip)
	return a.Unmap(), err == nil
}
