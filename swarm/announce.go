package swarm

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/bencode"

	"dcfs/swarm/gate"
)

// The library's own announcer waits a minute between announces, which is
// longer than a whole deployment. This one asks again after a second while
// there is nobody to fetch from, and keeps to the tracker's interval otherwise.
const (
	firstRetry  = time.Second
	maxInterval = 2 * time.Minute
	// defaultInterval is taken when a tracker names none.
	defaultInterval = 15 * time.Second
	announceTime    = 5 * time.Second // one request to one tracker
	goodbyeTime     = time.Second
	// reoffer is how often known peers are offered to the library again: it
	// never dials by itself a peer whose dial failed once.
	reoffer = 2 * time.Second
	// maxKnown bounds the peers remembered of a swarm.
	maxKnown = 2000
	maxReply = 1 << 20
	numWant  = 50
)

// trackerClient keeps no connection between announces, which are far apart, so
// that nothing is left when a swarm ends.
func trackerClient(g *gate.Gate) *http.Client {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	if g != nil {
		t = g.Identity.Secure(t)
	}
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// start begins to announce to the trackers and to offer peers.
func (s *Swarm) start(trackers, peers []string) {
	ctx, cancel := context.WithCancel(s.node.open)
	s.stop = cancel
	book := &addressBook{seen: make(map[netip.AddrPort]bool)}
	s.lasts, s.book, s.told = ctx, book, make(map[string]bool)
	for _, tr := range trackers {
		s.AddTracker(tr)
	}
	s.task(func() { s.offer(ctx, peers, book) })
	if e := s.exchange; e != nil {
		s.task(func() { e.run(ctx, s) })
		s.task(func() { e.deliver(ctx) })
		for range verifiers {
			s.task(func() { e.verify(ctx) })
		}
	}
	s.task(func() { s.hedgeLate(ctx) })
	if s.web != nil {
		s.task(func() { s.askWeb(ctx) })
	}
}

// maxTrackers bounds how many trackers are announced to.
const maxTrackers = 64

// AddTracker begins to announce to a tracker, until Leave, and says whether that
// is new.
func (s *Swarm) AddTracker(tracker string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving || s.told[tracker] || len(s.told) >= maxTrackers {
		return false
	}
	s.told[tracker] = true
	s.task(func() { s.announceTo(s.lasts, tracker, s.book) })
	return true
}

// task runs f until the swarm is left; both Leave and Node.Close wait for it.
func (s *Swarm) task(f func()) {
	s.announce.Add(1)
	s.node.tasks.Go(func() {
		defer s.announce.Done()
		f()
	})
}

// addressBook remembers the peers that trackers named.
type addressBook struct {
	mu   sync.Mutex
	seen map[netip.AddrPort]bool
}

func (b *addressBook) add(list []netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range list {
		if len(b.seen) >= maxKnown {
			return
		}
		b.seen[a] = true
	}
}

func (b *addressBook) list() []netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.seen))
}

// offer gives all known peers to the library every few seconds while pieces
// are missing; configured peers are resolved anew each time.
func (s *Swarm) offer(ctx context.Context, peers []string, book *addressBook) {
	tick := time.NewTicker(reoffer)
	defer tick.Stop()
	var silence stall
	for {
		s.unstall(&silence)
		s.recheckDoubts()
		s.askForgotten()
		for _, p := range peers {
			s.add(torrent.PeerSourceDirect, resolve(ctx, p))
		}
		if s.missing() > 0 {
			s.add(torrent.PeerSourceTracker, book.list())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func resolve(ctx context.Context, hostPort string) []netip.AddrPort {
	host, portText, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	out := make([]netip.AddrPort, 0, len(ips))
	for _, ip := range ips {
		out = append(out, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return out
}

// announceTo keeps one tracker informed until ctx ends, then says goodbye.
func (s *Swarm) announceTo(ctx context.Context, tracker string, book *addressBook) {
	event, retry, completed := "started", firstRetry, false
	for {
		left := s.missing()
		if left == 0 && !completed && event == "" {
			event = "completed"
		}
		answer, err := s.ask(ctx, tracker, event, left)
		s.heard(tracker, err)
		wait := retry
		switch {
		case err == nil:
			book.add(answer.peers)
			s.add(torrent.PeerSourceTracker, answer.peers)
			completed, event = completed || left == 0, ""
			wait = answer.interval
			if left != 0 && s.Stats().Peers == 0 {
				wait = min(retry, answer.interval)
				retry = min(2*retry, answer.interval)
			}
		case ctx.Err() == nil:
			s.log.Debug("a tracker does not answer", "tracker", tracker, "cause", err)
			retry = min(2*retry, 15*time.Second)
		}
		if !s.sleep(ctx, wait, !completed && left != 0) {
			break
		}
	}
	if event != "started" && s.node.open.Err() == nil { // else nothing to take back, or no time
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTime)
		defer cancel()
		_, _ = s.ask(ctx, tracker, "stopped", s.missing())
	}
}

// sleep waits for d, give or take a tenth so that hosts spread; a swarm that
// becomes complete meanwhile says so at once. It returns false when ctx ends.
func (s *Swarm) sleep(ctx context.Context, d time.Duration, untilComplete bool) bool {
	d += time.Duration((rand.Float64() - 0.5) * 0.2 * float64(d))
	var complete <-chan struct{}
	if untilComplete && s.t.Info() != nil {
		complete = s.t.Complete().On()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-complete:
	}
	return ctx.Err() == nil
}

// missing returns the bytes still missing; 1 when nobody knows yet.
func (s *Swarm) missing() int64 {
	if s.t.Info() == nil {
		return 1
	}
	return s.t.BytesMissing()
}

type announceAnswer struct {
	interval time.Duration
	peers    []netip.AddrPort
}

// ask sends one announce (BEP 3, compact by BEP 23 and BEP 7).
func (s *Swarm) ask(ctx context.Context, tracker, event string, left int64) (announceAnswer, error) {
	u, err := url.Parse(tracker)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return announceAnswer{}, fmt.Errorf("the tracker %q is no HTTP URL", tracker)
	}
	st := s.Stats()
	hash, id := s.t.InfoHash(), s.node.client.PeerID()
	q := u.Query()
	q.Set("info_hash", string(hash[:]))
	q.Set("peer_id", string(id[:]))
	q.Set("port", strconv.Itoa(s.node.Port()))
	q.Set("uploaded", strconv.FormatInt(st.Sent, 10))
	q.Set("downloaded", strconv.FormatInt(st.Useful, 10))
	q.Set("left", strconv.FormatInt(left, 10))
	q.Set("compact", "1")
	q.Set("numwant", strconv.Itoa(numWant))
	if s.rack != "" {
		q.Set("rack", s.rack) // the origin's tracker names hosts of the same rack first
	}
	if event != "" {
		q.Set("event", event)
	}
	// Not every tracker reads a plus sign as a space.
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return announceAnswer{}, err
	}
	resp, err := s.node.http.Do(req)
	if err != nil {
		return announceAnswer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return announceAnswer{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return announceAnswer{}, fmt.Errorf("the tracker answers %s", resp.Status)
	}
	return parseAnswer(body)
}

// parseAnswer reads a tracker's answer, which is hostile until checked.
func parseAnswer(body []byte) (announceAnswer, error) {
	var raw struct {
		Failure  string        `bencode:"failure reason"`
		Interval int64         `bencode:"interval"`
		Peers    bencode.Bytes `bencode:"peers"`
		Peers6   string        `bencode:"peers6"`
	}
	err := shallow(body)
	if err == nil {
		err = bencode.Unmarshal(body, &raw)
	}
	if err != nil {
		return announceAnswer{}, fmt.Errorf("the tracker's answer is malformed: %w", err)
	}
	if raw.Failure != "" {
		return announceAnswer{}, fmt.Errorf("the tracker refuses: %.200q", raw.Failure)
	}
	out := announceAnswer{interval: defaultInterval}
	if raw.Interval > 0 {
		out.interval = time.Duration(min(raw.Interval, int64(maxInterval/time.Second))) * time.Second
	}
	out.peers = append(compact(raw.Peers6, 16), listed(raw.Peers)...)
	return out, nil
}

// listed reads the value of "peers", a compact string or a list of
// dictionaries.
func listed(raw bencode.Bytes) []netip.AddrPort {
	if len(raw) == 0 {
		return nil
	}
	if raw[0] != 'l' {
		var s string
		if bencode.Unmarshal(raw, &s) != nil {
			return nil
		}
		return compact(s, 4)
	}
	var dicts []struct {
		IP   string `bencode:"ip"`
		Port int64  `bencode:"port"`
	}
	if bencode.Unmarshal(raw, &dicts) != nil {
		return nil
	}
	var out []netip.AddrPort
	for _, d := range dicts {
		ip, err := netip.ParseAddr(d.IP)
		if err == nil && d.Port > 0 && d.Port < 1<<16 {
			out = append(out, netip.AddrPortFrom(ip.Unmap(), uint16(d.Port)))
		}
	}
	return out
}

// compact reads addresses of size bytes, each followed by a port.
func compact(s string, size int) []netip.AddrPort {
	var out []netip.AddrPort
	for ; len(s) >= size+2; s = s[size+2:] {
		ip, _ := netip.AddrFromSlice([]byte(s[:size]))
		if port := uint16(s[size])<<8 | uint16(s[size+1]); port != 0 {
			out = append(out, netip.AddrPortFrom(ip.Unmap(), port))
		}
	}
	return out
}
