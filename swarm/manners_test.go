package swarm

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/anacrolix/torrent"

	"dcfs/swarm/trade"
)

func TestBans(t *testing.T) {
	var log strings.Builder
	b := newBans(slog.New(slog.NewTextHandler(&log, nil)))
	now := time.Unix(1e9, 0)
	b.now = func() time.Time { return now }
	for range banStrikes - 1 {
		b.strike("10.0.0.1", "it lies")
	}
	if now = now.Add(strikesFor + time.Second); b.has("10.0.0.1") {
		t.Error("two offences are enough")
	}
	b.strike("10.0.0.1", "it lies")
	if b.has("10.0.0.1") || log.Len() > 0 {
		t.Error("old offences count")
	}
	for range banStrikes {
		b.strike("10.0.0.1", "it lies")
	}
	if _, found := b.Lookup(net.ParseIP("10.0.0.1")); !found || !b.has("::ffff:10.0.0.1") || len(b.list()) != 1 || b.NumRanges() != 1 {
		t.Error("it is not banned")
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "it lies") || !strings.Contains(text, "10.0.0.1") {
		t.Errorf("the log: %s", text)
	}
	now = now.Add(banFor)
	if _, found := b.Lookup(net.ParseIP("10.0.0.1")); found || b.has("10.0.0.1") {
		t.Error("it is banned for ever")
	}
	b.ban("10.0.0.2", "it sent a wrong piece", banForWrong)
	for k := range 2 * maxConduct {
		b.strike(fmt.Sprintf("fd00::%x", k), "many")
	}
	if len(b.peers) > maxConduct || !b.has("10.0.0.2") {
		t.Errorf("%d addresses are known, banned %v", len(b.peers), b.list())
	}
}

// Who connects all the time is banned for a while; who does from time to time, or
// from this machine, is not.
func TestBansVisitors(t *testing.T) {
	b := newBans(slog.New(slog.DiscardHandler))
	now := time.Unix(1e9, 0)
	b.now = func() time.Time { return now }
	visit := func(ip string, times int, every time.Duration) (banned bool) {
		for range times {
			now = now.Add(every)
			_, found := b.Lookup(net.ParseIP(ip))
			banned = banned || found
		}
		return banned
	}
	if visit("10.0.0.1", 5000, 100*time.Millisecond) || visit("127.0.0.1", 5000, time.Millisecond) {
		t.Error("an honest visitor is banned")
	}
	if !visit("10.0.0.2", 1000, 10*time.Millisecond) {
		t.Error("a hundred visits a second are nothing")
	}
	// Behind one router: each connection allows for more, and nobody is banned.
	router, all := netip.MustParseAddr("10.0.0.3"), make([]torrent.Peer, 4)
	for k := range all {
		b.linked(&all[k], router)
	}
	if visit("10.0.0.3", 5000, 11*time.Millisecond) {
		t.Error("ninety visits a second of five hosts are too many")
	}
	if !visit("10.0.0.3", 5000, 2*time.Millisecond) || b.has("10.0.0.3") {
		t.Error("five hundred visits a second are let in, or get all of them banned")
	}
	for k := range all {
		b.unlinked(&all[k])
		b.unlinked(&all[k])
	}
	if !visit("10.0.0.3", 5000, 11*time.Millisecond) || !b.has("10.0.0.3") {
		t.Error("connections that are closed count")
	}
}

// TestBansManyAddresses: a tracker may make up any number of them.
func TestBansManyAddresses(t *testing.T) {
	b := newBans(slog.New(slog.DiscardHandler))
	start := time.Now()
	for k := range 200_000 {
		b.Lookup(net.IPv4(10, byte(k>>16), byte(k>>8), byte(k)))
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a look at 200,000 addresses takes %s", took)
	}
}

// TestManners: a peer's queue is bounded, in messages and in bytes, and only the
// first offence of a connection is told.
func TestManners(t *testing.T) {
	for name, c := range map[string]struct {
		size   int
		broken error
		want   string
	}{
		"messages":  {9, nil, "faster"},
		"bytes":     {32 << 10, nil, "faster"},
		"malformed": {9, fmt.Errorf("malformed"), "malformed"},
	} {
		e := &exchange{wake: make(chan struct{}, 1)}
		sp := new(speaker)
		for range 3 * maxPending {
			e.listen(nil, sp, trade.Message{Kind: trade.Cancel}, c.size, c.broken)
		}
		var offences []string
		in := e.events()
		for _, ev := range in {
			if ev.kind == offended {
				offences = append(offences, ev.why)
			}
		}
		if len(offences) != 1 || !strings.Contains(offences[0], c.want) || len(in) > maxPending+1 || len(in)*c.size > maxPendBytes+c.size {
			t.Errorf("%s: %d messages of %d bytes are kept, offences %q", name, len(in), c.size, offences)
		}
	}
}
