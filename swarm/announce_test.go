package swarm

import (
	"strings"
	"testing"
	"time"
)

func TestParseAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		body     string
		interval time.Duration
		peers    string
		fails    string
	}{
		"compact":       {body: "d8:intervali15e5:peers12:\x7f\x00\x00\x01\x1b\x9f\x0a\x00\x00\x02\x1b\xa0e", interval: 15 * time.Second, peers: "127.0.0.1:7071 10.0.0.2:7072"},
		"dictionaries":  {body: "d8:intervali15e5:peersld2:ip8:10.0.0.24:porti7072eed2:ip4:host4:porti1eed2:ip8:10.0.0.34:porti70000eeee", interval: 15 * time.Second, peers: "10.0.0.2:7072"},
		"ipv6":          {body: "d8:intervali1e5:peers0:6:peers618:" + "\x20\x01" + strings.Repeat("\x00", 13) + "\x01\x1b\x9fe", interval: time.Second, peers: "[2001::1]:7071"},
		"no interval":   {body: "d5:peers0:e", interval: defaultInterval},
		"huge interval": {body: "d8:intervali999999999e5:peers0:e", interval: maxInterval},
		"port 0":        {body: "d8:intervali15e5:peers6:\x0a\x00\x00\x02\x00\x00e", interval: 15 * time.Second},
		"cut short":     {body: "d8:intervali15e5:peers8:\x0a\x00\x00\x02\x1b\xa0\x01\x02e", interval: 15 * time.Second, peers: "10.0.0.2:7072"},
		"refusal":       {body: "d14:failure reason4:nopee", fails: "refuses"},
		"no bencode":    {body: "<html>", fails: "malformed"},
		"trailing":      {body: "d5:peers0:ee", fails: "malformed"},
		"empty":         {body: "", fails: "malformed"},
	} {
		got, err := parseAnswer([]byte(c.body))
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v, want %q", name, err, c.fails)
			}
			continue
		}
		var peers []string
		for _, p := range got.peers {
			peers = append(peers, p.String())
		}
		if err != nil || got.interval != c.interval || strings.Join(peers, " ") != c.peers {
			t.Errorf("%s: %v %q, %v", name, got.interval, peers, err)
		}
	}
}

func FuzzTrackerAnswer(f *testing.F) {
	for _, s := range []string{
		"d8:intervali15e5:peers6:\x0a\x00\x00\x02\x1b\xa0e", "d5:peersld2:ip8:10.0.0.24:porti7072eeee",
		"d14:failure reason4:nopee", "d6:peers618:0123456789abcdef\x1b\x9fe", "i1e", "", "d5:peersi1ee",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseAnswer(body)
		if err == nil && (got.interval < time.Second || got.interval > maxInterval) {
			t.Errorf("interval %v", got.interval)
		}
		for _, p := range got.peers {
			if !p.IsValid() || p.Port() == 0 {
				t.Errorf("peer %v", p)
			}
		}
	})
}
