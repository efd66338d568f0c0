package board

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"

	"dcfs/cmd/internal/control"
)

// Errors of Accept.
var (
	// ErrUnknown says that the release is none of this board's.
	ErrUnknown = errors.New("no such release here")
	// ErrBad says that a report is none.
	ErrBad = errors.New("bad report")
	// ErrTooMany says that there is no room for the host, or that it reports
	// too often.
	ErrTooMany = errors.New("too many reports")
)

const (
	stateLost = "lost"

	soonest     = 2 * time.Second        // between two reports of a host
	perHost     = 2 * time.Millisecond   // added for each host: 500 reports a second in all
	latest      = time.Minute            // but never rarer
	tooSoon     = 250 * time.Millisecond // a host that changes state reports out of turn
	silence     = 10 * time.Second       // that a host may be late
	kept        = 10 * time.Minute       // what has ended or is lost stays in the list
	longest     = 10 * 365 * 24 * time.Hour
	stalledFrom = 15 * time.Second // no byte comes for so long

	maxName, maxPath, maxText = 64, 200, 300 // bytes
)

// hostKey is which host at which release.
type hostKey struct {
	addr     netip.AddrPort // where it accepts peers; with port 0 when it does not say
	infohash string
}

// portOf is the port of HOST:PORT, 0 when there is none.
func portOf(listen string) uint16 {
	_, text, err := net.SplitHostPort(listen)
	if err != nil {
		return 0
	}
	port, _ := strconv.ParseUint(text, 10, 16)
	return uint16(port)
}

// entry is one host that reports, at one release.
type entry struct {
	addr     netip.AddrPort
	r        control.Report
	at       time.Time // when it came
	next     time.Time // when the next is due
	moved    time.Time // when its bytes changed last
	stalled  bool
	lost     bool
	infohash string
}

func (e *entry) ended() bool { return e.r.State == control.Done || e.r.State == control.Failed }

func (e *entry) whole() bool { return e.r.Pieces > 0 && e.r.PiecesHave == e.r.Pieces }

// name is what to call it in an event.
func (e *entry) name() string {
	if e.r.Host != "" {
		return e.r.Host
	}
	return e.where()
}

// where is its address, with the port if that is known.
func (e *entry) where() string {
	if e.addr.Port() == 0 {
		return e.addr.Addr().String()
	}
	return e.addr.String()
}

// Accept takes a report that came from an address and says in how long the next
// is wanted. Errors wrap ErrUnknown, ErrBad or ErrTooMany.
func (b *Board) Accept(r control.Report, from netip.Addr) (time.Duration, error) {
	base, ok := b.cfg.Find(strings.ToLower(r.Infohash))
	if !ok {
		return 0, ErrUnknown
	}
	if err := tidy(&r, base); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.cfg.Now()
	b.sweep(now)
	addr := netip.AddrPortFrom(from, portOf(r.PeerListen))
	key := hostKey{addr, base.Infohash}
	e := b.hosts[key]
	if e == nil {
		if len(b.hosts) >= b.cfg.Hosts || b.perAddr[from] >= b.cfg.PerAddr {
			return 0, fmt.Errorf("%w: this board has no room for another host", ErrTooMany)
		}
		e = &entry{addr: addr, infohash: base.Infohash, moved: now, r: control.Report{Host: r.Host}}
		b.hosts[key] = e
		b.perAddr[from]++
	} else if now.Sub(e.at) < tooSoon {
		return 0, fmt.Errorf("%w: once in %s is enough", ErrTooMany, soonest)
	} else if !e.r.Started.Equal(r.Started) { // another process
		*e = entry{addr: addr, infohash: base.Infohash, moved: now, r: control.Report{Host: r.Host}}
	}
	if r.StateSince.After(now) || now.Sub(r.StateSince) > longest {
		r.StateSince = now // its clock is not ours
	}
	b.differ(e, &r, now)
	e.r, e.at = r, now
	wait := min(soonest+time.Duration(len(b.hosts))*perHost, latest)
	e.next = now.Add(wait)
	return wait, nil
}

// tidy holds a report to its bounds.
func tidy(r *control.Report, base Base) error {
	if !r.State.Reached(control.Announced) && r.State != control.Failed {
		return fmt.Errorf("%w: there is no such state", ErrBad)
	}
	r.Version, r.Infohash, r.Bytes, r.Pieces = base.Version, base.Infohash, base.Bytes, base.Pieces
	r.Host, r.Rack, r.Reason = clip(r.Host, maxName), clip(r.Rack, maxName), clip(r.Reason, maxText)
	r.PiecesHave = min(max(0, r.PiecesHave), r.Pieces)
	for _, n := range []*int64{&r.BytesHave, &r.BytesOrigin, &r.BytesPeers, &r.BytesReused, &r.DownRate, &r.UpRate,
		&r.FirstByteMS, &r.EtaMS, &r.HashFailures} {
		*n = min(max(0, *n), 1<<53) // what JavaScript can count to
	}
	for _, n := range []*int{&r.Peers, &r.Banned} {
		*n = min(max(0, *n), 1<<31)
	}
	r.BytesHave = min(r.BytesHave, r.Bytes)
	if len(r.Cells) != cellCount(base.Pieces) {
		r.Cells = nil
	}
	r.Waiting = r.Waiting[:min(len(r.Waiting), maxWaits)]
	for i := range r.Waiting {
		w := &r.Waiting[i]
		w.Path, w.AgeMS, w.Readers = clip(w.Path, maxPath), min(max(0, w.AgeMS), 1<<53), min(max(0, w.Readers), 1<<31)
	}
	if r.Bound != nil {
		r.Bound = &control.Bound{Kind: clip(r.Bound.Kind, maxName), Text: clip(r.Bound.Text, maxText)}
	}
	r.PeerAddrs, r.Held = nil, nil
	r.Mountpoint, r.Dest, r.Activate = "", "", ""
	return nil
}

// clip makes a stranger's text harmless and short: nothing that cannot be seen,
// and at most max bytes of UTF-8.
func clip(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) { // not the marks that turn text around
			return r
		}
		return -1
	}, strings.ToValidUTF8(s, ""))
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// happenings are the events that a change of state is.
var happenings = map[control.State]string{
	control.Complete: "complete", control.Materialised: "materialised", control.Done: "left", control.Failed: "failed",
}

// differ makes events of what is new in a report. b.mu is held.
func (b *Board) differ(e *entry, r *control.Report, now time.Time) {
	tell := func(kind string, bad bool, text string) {
		b.events.add(Event{Time: now, Kind: kind, Bad: bad, Version: r.Version, Host: e.name(), Text: text})
	}
	old := &e.r
	switch {
	case old.State == "":
		tell("came", false, "")
	case e.lost:
		tell("back", false, "")
	}
	if r.BytesHave != old.BytesHave || e.lost {
		if e.stalled {
			tell("resumed", false, "")
		}
		e.moved, e.stalled = now, false
	}
	if old.State != r.State {
		// A quick host goes through several states between two reports.
		for _, s := range []control.State{control.Complete, control.Materialised} {
			if r.State.Reached(s) && r.State != s && !old.State.Reached(s) && old.State != "" {
				tell(happenings[s], false, "")
			}
		}
		if kind := happenings[r.State]; kind != "" && (old.State != "" || r.State == control.Failed) {
			tell(kind, r.State == control.Failed, r.Reason)
		}
	}
	if r.Banned > old.Banned {
		tell("banned", true, fmt.Sprintf("avoids %d addresses after %d wrong pieces", r.Banned, r.HashFailures))
	}
	e.lost = false
}

// sweep notices who is silent or stands still, and forgets what ended long ago.
// It looks at most once a second. b.mu is held.
func (b *Board) sweep(now time.Time) {
	if now.Sub(b.swept) < time.Second {
		return
	}
	b.swept = now
	if b.cfg.Releases != nil {
		b.notice(b.cfg.Releases(), now)
	}
	for key, e := range b.hosts {
		bad := func(kind, text string) {
			b.events.add(Event{Time: now, Kind: kind, Bad: true, Version: e.r.Version, Host: e.name(), Text: text})
		}
		since := now.Sub(e.next)
		if _, ok := b.cfg.Find(e.infohash); !ok || since > kept {
			delete(b.hosts, key)
			from := e.addr.Addr()
			if b.perAddr[from]--; b.perAddr[from] <= 0 {
				delete(b.perAddr, from)
			}
			continue
		}
		if e.ended() {
			continue
		}
		if !e.lost && since > silence {
			e.lost = true
			bad("lost", "no report for "+now.Sub(e.at).Round(time.Second).String())
		}
		if !e.lost && !e.stalled && !e.whole() && now.Sub(e.moved) > stalledFrom {
			e.stalled = true
			text := ""
			if e.r.Bound != nil {
				text = e.r.Bound.Text
			}
			bad("stalled", text)
		}
	}
}
