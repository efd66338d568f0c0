package swarm

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"dcfs/cache/piece"
)

// trail remembers what a person asks when a transfer is slow, and what the
// ledger of requests does not say: whom a piece came from, and who takes no
// requests. Its hooks run under the library's lock, so nothing of the library
// that locks may be called while mu is held.
type trail struct {
	contacts *contacts

	mu      sync.Mutex
	choking map[*torrent.Peer]time.Time // since when; zero for who takes requests
	senders map[*torrent.Peer]sender    // as their first block found them
	came    map[*torrent.Torrent]*provenance
}

// sender is who a connection's blocks come from.
type sender struct {
	name   string // where it listens
	origin bool
}

// provenance says of each piece which peers gave blocks of it. Two bytes name a
// peer, and a piece remembers the first few.
type provenance struct {
	names  []string // names[0] is nobody
	number map[string]uint16
	pieces [][maxSources]uint16
	bytes  *sources
}

// sources counts bytes by who sent them.
type sources struct {
	origin, peers atomic.Int64
	first         atomic.Int64 // when the first came, in nanoseconds since 1970; 0 for not yet
}

const (
	maxSources = 4
	maxNames   = 1 << 15
)

func newTrail(k *contacts) *trail {
	return &trail{
		contacts: k, choking: make(map[*torrent.Peer]time.Time), senders: make(map[*torrent.Peer]sender),
		came: make(map[*torrent.Torrent]*provenance),
	}
}

// install hooks the trail into the library.
func (k *trail) install(c *torrent.Callbacks) {
	c.PeerConnAdded = append(c.PeerConnAdded, func(p *torrent.PeerConn) {
		k.choke(&p.Peer, time.Now(), true) // BEP 3: that is how it begins
	})
	c.ReadMessage = func(p *torrent.PeerConn, m *pp.Message) {
		switch {
		case m.Keepalive:
		case m.Type == pp.Choke:
			k.choke(&p.Peer, time.Now(), false)
		case m.Type == pp.Unchoke:
			k.choke(&p.Peer, time.Time{}, false)
		}
	}
	c.ReceivedUsefulData = append(c.ReceivedUsefulData, func(e torrent.ReceivedUsefulDataEvent) {
		k.note(e.Peer, piece.Index(e.Message.Index), len(e.Message.Piece))
	})
	c.PeerClosed = append(c.PeerClosed, func(p *torrent.Peer) {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.choking, p)
		delete(k.senders, p)
	})
}

// choke notes since when a peer takes no requests. Only a new peer is added:
// messages of one that was closed may still be on their way.
func (k *trail) choke(p *torrent.Peer, since time.Time, fresh bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if before, ok := k.choking[p]; fresh || ok && before.IsZero() != since.IsZero() {
		k.choking[p] = since
	}
}

// note remembers that a block of piece i came from p.
func (k *trail) note(p *torrent.Peer, i piece.Index, bytes int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if from := k.came[p.Torrent()]; from != nil {
		s := k.sender(p)
		from.note(i, s.name)
		if from.bytes.first.Load() == 0 {
			from.bytes.first.Store(time.Now().UnixNano())
		}
		if s.origin {
			from.bytes.origin.Add(int64(bytes))
		} else {
			from.bytes.peers.Add(int64(bytes))
		}
	}
}

// noteWeb remembers that piece i came from a web seed.
func (k *trail) noteWeb(t *torrent.Torrent, i piece.Index) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if from := k.came[t]; from != nil {
		from.note(i, webSeedName)
		from.bytes.first.CompareAndSwap(0, time.Now().UnixNano())
	}
}

// webSeedName stands for the address of a peer.
const webSeedName = "web seed"

// sender puts a name to a peer; to an open connection only once, since that
// takes longer than all else that is done for a block. k.mu is held.
func (k *trail) sender(p *torrent.Peer) sender {
	s, ok := k.senders[p]
	if !ok {
		s.name, s.origin = k.contacts.name(p)
		if _, open := k.choking[p]; open {
			k.senders[p] = s
		}
	}
	return s
}

func (v *provenance) note(i piece.Index, name string) {
	if i < 0 || int(i) >= len(v.pieces) {
		return
	}
	n, ok := v.number[name]
	if !ok {
		if len(v.names) >= maxNames {
			return
		}
		n = uint16(len(v.names))
		v.names, v.number[name] = append(v.names, name), n
	}
	for slot := range v.pieces[i] {
		switch v.pieces[i][slot] {
		case 0:
			v.pieces[i][slot] = n
			return
		case n:
			return
		}
	}
}

// follow begins to remember where the pieces of a torrent come from, and counts
// their bytes.
func (k *trail) follow(t *torrent.Torrent, pieces int, bytes *sources) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.came[t] = &provenance{names: []string{""}, number: make(map[string]uint16), pieces: make([][maxSources]uint16, pieces), bytes: bytes}
}

// wrong forgets whom piece i came from: its hash was wrong, and it comes anew.
func (k *trail) wrong(t *torrent.Torrent, i piece.Index) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v := k.came[t]; v != nil && i >= 0 && int(i) < len(v.pieces) {
		v.pieces[i] = [maxSources]uint16{}
	}
}

func (k *trail) forget(t *torrent.Torrent) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.came, t)
}

// originClient is how the client name of an origin's seeder ends. Nothing but
// figures for people depend on it: a peer can say it, too.
const originClient = " (origin)"

// name is where a peer listens, as HOST:PORT, and whether it calls itself an
// origin. It takes no lock.
func (k *contacts) name(p *torrent.Peer) (name string, origin bool) {
	c, ok := p.TryAsPeerConn()
	if !ok {
		return webSeedName, false
	}
	client, _ := c.PeerClientName.Load().(string)
	return k.listens(c), strings.HasSuffix(client, originClient)
}

func (k *contacts) listens(c *torrent.PeerConn) string {
	a, err := netip.ParseAddrPort(c.RemoteAddr.String())
	if err != nil {
		return c.RemoteAddr.String()
	}
	port := int(a.Port())
	if p, ok := k.ports.Load(c); ok && p.(int) > 0 {
		port = p.(int)
	}
	return net.JoinHostPort(a.Addr().Unmap().String(), strconv.Itoa(port))
}

// Link is a connection, seen by who waits for what comes over it.
type Link struct {
	Addr    string // where the peer listens, HOST:PORT
	Client  string
	Origin  bool      // it calls itself an origin
	Choking time.Time // since when it takes no requests; zero when it does
	Asked   int       // blocks asked of it that have not come
	Since   time.Time // of those, since when the first is waited for; zero for none
	Sent    time.Time // when its last useful block came; zero for never
	has     interface{ Contains(uint32) bool }
	asked   map[piece.Index]time.Time
}

// Has reports whether the peer has piece i.
func (l *Link) Has(i piece.Index) bool { return i >= 0 && l.has.Contains(uint32(i)) }

// AskedFor returns since when blocks of piece i are asked of the peer, and
// whether there are any.
func (l *Link) AskedFor(i piece.Index) (since time.Time, ok bool) {
	since, ok = l.asked[i]
	return since, ok
}

// Links lists the connections of the moment, by address.
func (s *Swarm) Links() []Link {
	var out []Link
	planned := s.exchange.looked()
	for _, c := range s.t.PeerConns() {
		name, origin := s.node.contacts.name(&c.Peer)
		client, _ := c.PeerClientName.Load().(string)
		l := Link{Addr: name, Client: client, Origin: origin, has: c.PeerPieces()}
		s.node.trail.mu.Lock()
		l.Choking = s.node.trail.choking[&c.Peer]
		s.node.trail.mu.Unlock()
		s.asks.describe(&c.Peer, &l)
		planned[c].describe(&l)
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b Link) int { return strings.Compare(a.Addr, b.Addr) })
	return out
}

// describe adds what a peer was asked and has not sent yet.
func (a *asks) describe(p *torrent.Peer, l *Link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l.Sent, l.asked = a.peers[p], make(map[piece.Index]time.Time)
	for r, since := range a.sent {
		if r.peer != p {
			continue
		}
		l.Asked++
		l.Since = earlier(l.Since, since)
		l.asked[piece.Index(r.Index)] = earlier(l.asked[piece.Index(r.Index)], since)
	}
}

// earlier returns the first of two times; zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// From returns which peers gave blocks of piece i: the first few, by the
// address where they listen.
func (s *Swarm) From(i piece.Index) []string {
	k := s.node.trail
	k.mu.Lock()
	defer k.mu.Unlock()
	v := k.came[s.t]
	if v == nil || i < 0 || int(i) >= len(v.pieces) {
		return nil
	}
	var out []string
	for _, n := range v.pieces[i] {
		if n != 0 {
			out = append(out, v.names[n])
		}
	}
	return out
}

// Sources are the bytes of blocks that were not here before, by who sent them.
type Sources struct {
	Origin int64 // of peers that call themselves an origin
	Peers  int64
	Web    int64 // of web seeds

	First   time.Time // when the first byte came; zero for not yet
	WebLast time.Time // when a piece came from a web seed last; likewise
}

// Sources returns where the bytes came from since the swarm was joined.
func (s *Swarm) Sources() Sources {
	out := Sources{Origin: s.bytes.origin.Load(), Peers: s.bytes.peers.Load()}
	if s.web != nil {
		out.Web = s.web.bytes.Load()
		if ns := s.web.last.Load(); ns != 0 {
			out.WebLast = time.Unix(0, ns)
		}
	}
	if ns := s.bytes.first.Load(); ns != 0 {
		out.First = time.Unix(0, ns)
	}
	return out
}

// Trouble is what went wrong since the swarm was joined.
type Trouble struct {
	HashFailures int64            // pieces that came with a wrong hash
	Banned       int              // addresses that are talked to no more
	Trackers     map[string]error // the trackers that failed the last time, and how
	WebSeeds     map[string]error // likewise the web seeds that were asked
}

// Trouble returns what went wrong.
func (s *Swarm) Trouble() Trouble {
	banned := make(map[netip.Addr]bool)
	for _, ip := range s.node.client.BadPeerIPs() { // some in two forms
		if a, err := netip.ParseAddr(ip); err == nil {
			banned[a.Unmap()] = true
		}
	}
	for _, a := range s.node.bans.list() {
		banned[a] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Trouble{HashFailures: s.wrongs.Load(), Banned: len(banned), Trackers: make(map[string]error), WebSeeds: s.web.trouble()}
	for tr, err := range s.unheard {
		out.Trackers[tr] = err
	}
	return out
}

// wrong notes a piece whose hash was wrong. It may be called under the
// library's lock.
func (s *Swarm) wrong(i piece.Index) {
	s.wrongs.Add(1)
	s.node.trail.wrong(s.t, i)
}

// heard notes how an announce to a tracker went.
func (s *Swarm) heard(tracker string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.unheard, tracker)
		return
	}
	if s.unheard == nil {
		s.unheard = make(map[string]error)
	}
	s.unheard[tracker] = err
}

// Throttled reports whether bytes wait at this moment for the limit on what is
// received.
func (n *Node) Throttled() bool { return n.gate != nil && n.gate.Rates.Busy() }
