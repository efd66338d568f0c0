package tracker

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// clock is a Now that moves by hand.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

func newClock() *clock { return &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func hash(n byte) string { return strings.Repeat(string(rune('a'+n)), 20) }

func id(n int) string { return fmt.Sprintf("-XX0000-%012d", n) }

// client is one peer under test; extra overrides or adds parameters.
type client struct {
	t      testing.TB
	tr     http.Handler
	remote string // of the request, without the port
	local  string // where the request reached the tracker
	params map[string]string
}

func peerAt(t testing.TB, tr http.Handler, remote string, n, port int) client {
	return client{t: t, tr: tr, remote: remote, params: map[string]string{
		"info_hash": hash(0), "peer_id": id(n), "port": fmt.Sprint(port), "left": "1",
	}}
}

func (c client) with(pairs ...string) client {
	c.params = maps.Clone(c.params)
	for i := 0; i < len(pairs); i += 2 {
		c.params[pairs[i]] = pairs[i+1]
	}
	return c
}

func (c client) announce() map[string]any {
	c.t.Helper()
	q := url.Values{}
	for k, v := range c.params {
		q.Set(k, v)
	}
	return c.get("/announce?" + q.Encode())
}

func (c client) get(target string) map[string]any {
	c.t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.RemoteAddr = net.JoinHostPort(c.remote, "40000")
	if c.local != "" {
		addr := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.local), 7070))
		r = r.WithContext(contextWithLocal(r.Context(), addr))
	}
	w := httptest.NewRecorder()
	c.tr.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		c.t.Fatalf("status %d", w.Code)
	}
	v, err := decodeAll(w.Body.String())
	dict, ok := v.(map[string]any)
	if err != nil || !ok {
		c.t.Fatalf("answer %q: %v", w.Body, err)
	}
	return dict
}

// addrs returns the peers of a good answer, sorted, as address:port.
func addrs(t testing.TB, answer map[string]any) []string {
	t.Helper()
	if reason, bad := answer["failure reason"]; bad {
		t.Fatalf("refused: %v", reason)
	}
	out := []string{}
	if list, ok := answer["peers"].([]any); ok {
		for _, e := range list {
			d := e.(map[string]any)
			out = append(out, net.JoinHostPort(d["ip"].(string), fmt.Sprint(d["port"])))
		}
	} else {
		out = append(compactAddrs(t, answer["peers"], 4), compactAddrs(t, answer["peers6"], 16)...)
	}
	slices.Sort(out)
	return out
}

func compactAddrs(t testing.TB, v any, ipLen int) (out []string) {
	t.Helper()
	s, _ := v.(string)
	if len(s)%(ipLen+2) != 0 {
		t.Fatalf("%d bytes of compact peers", len(s))
	}
	for e := range slices.Chunk([]byte(s), ipLen+2) {
		ip, _ := netip.AddrFromSlice(e[:ipLen])
		out = append(out, netip.AddrPortFrom(ip, binary.BigEndian.Uint16(e[ipLen:])).String())
	}
	return out
}

func wantAddrs(t testing.TB, answer map[string]any, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := addrs(t, answer); !slices.Equal(got, want) {
		t.Errorf("peers %v, want %v", got, want)
	}
}

func wantCounts(t testing.TB, answer map[string]any, complete, incomplete, downloaded int64) {
	t.Helper()
	got := [3]any{answer["complete"], answer["incomplete"], answer["downloaded"]}
	if want := [3]any{complete, incomplete, downloaded}; got != want {
		t.Errorf("complete, incomplete, downloaded = %v, want %v", got, want)
	}
}
