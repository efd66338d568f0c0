package tracker

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func contextWithLocal(ctx context.Context, addr any) context.Context {
	return context.WithValue(ctx, http.LocalAddrContextKey, addr)
}

// good is a query that is served; the cases below break it.
const good = "info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=bbbbbbbbbbbbbbbbbbbb&port=6881&left=1"

// serveRaw sends a target as it came over the wire.
func serveRaw(t testing.TB, tr http.Handler, path, rawQuery string) map[string]any {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.URL.RawQuery = rawQuery
	w := httptest.NewRecorder()
	tr.ServeHTTP(w, r)
	v, err := decodeAll(w.Body.String())
	answer, ok := v.(map[string]any)
	if w.Code != http.StatusOK || err != nil || !ok {
		t.Fatalf("status %d, answer %q: %v", w.Code, w.Body, err)
	}
	return answer
}

func TestHostileQueriesAreRefused(t *testing.T) {
	without := func(key string) string {
		var kept []string
		for _, p := range strings.Split(good, "&") {
			if !strings.HasPrefix(p, key+"=") {
				kept = append(kept, p)
			}
		}
		return strings.Join(kept, "&")
	}
	for _, c := range []struct{ path, query, reason string }{
		{"/announce", "", "info_hash is missing"},
		{"/announce", without("info_hash"), "info_hash is missing"},
		{"/announce", good + "&info_hash=aaaaaaaaaaaaaaaaaaaa", "more than once"},
		{"/announce", without("info_hash") + "&info_hash=aaa", "20 bytes"},
		{"/announce", without("info_hash") + "&info_hash=" + strings.Repeat("a", 40), "20 bytes"},
		{"/announce", without("peer_id"), "peer_id is missing"},
		{"/announce", without("peer_id") + "&peer_id=b", "peer_id must be 20"},
		{"/announce", without("port"), "port"},
		{"/announce", without("port") + "&port=0", "port"},
		{"/announce", without("port") + "&port=65536", "port"},
		{"/announce", without("port") + "&port=-1", "port"},
		{"/announce", without("port") + "&port=0x1", "port"},
		{"/announce", good + "&port=6882", "more than once"},
		{"/announce", without("left") + "&left=-1", "left"},
		{"/announce", without("left") + "&left=9223372036854775808", "left"},
		{"/announce", without("left") + "&left=1e3", "left"},
		{"/announce", good + "&uploaded=-1", "uploaded"},
		{"/announce", good + "&downloaded=99999999999999999999", "downloaded"},
		{"/announce", good + "&numwant=x", "numwant"},
		{"/announce", good + "&numwant=99999999999", "numwant"},
		{"/announce", good + "&event=exploded", "event"},
		{"/announce", good + "&x=%zz", "malformed"},
		{"/announce", good + ";left=0", "malformed"},
		{"/announce", good + "&x=" + strings.Repeat("x", maxQuery), "too long"},
		{"/announce", strings.Replace(good, "aaaa", "zzzz", 1), "does not serve"},
		{"/scrape", "", "info_hash is missing"},
		{"/scrape", "info_hash=a", "20 bytes"},
		{"/scrape", "%", "malformed"},
		{"/scrape", "info_hash=" + strings.Repeat("x", maxQuery), "too long"},
		{"/scrape", strings.Repeat("info_hash=a&", maxScrape+1), "too many"},
	} {
		tr := New(Config{Allow: func(h [20]byte) bool { return h[0] == 'a' }})
		answer := serveRaw(t, tr, c.path, c.query)
		reason, _ := answer["failure reason"].(string)
		if len(answer) != 1 || !strings.Contains(reason, c.reason) {
			t.Errorf("%s?%.200s: answer %v, want only a reason with %q", c.path, c.query, answer, c.reason)
		}
		if len(tr.swarms) != 0 {
			t.Errorf("%s?%.200s made a swarm", c.path, c.query)
		}
	}
}

func TestUnknownRemoteAddressIsRefused(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/announce?"+good, nil)
	r.RemoteAddr = "@"
	w := httptest.NewRecorder()
	New(Config{}).ServeHTTP(w, r)
	if !strings.Contains(w.Body.String(), "14:failure reason") {
		t.Errorf("answer %q", w.Body)
	}
}

func TestOtherMethodsAndPaths(t *testing.T) {
	tr := New(Config{})
	for _, c := range []struct {
		method, target string
		status         int
	}{
		{http.MethodPost, "/announce?" + good, http.StatusMethodNotAllowed},
		{http.MethodHead, "/announce?" + good, http.StatusMethodNotAllowed},
		{http.MethodPut, "/scrape?" + good, http.StatusMethodNotAllowed},
		{http.MethodGet, "/", http.StatusNotFound},
		{http.MethodGet, "/announce/x", http.StatusNotFound},
	} {
		w := httptest.NewRecorder()
		tr.ServeHTTP(w, httptest.NewRequest(c.method, c.target, nil))
		if w.Code != c.status {
			t.Errorf("%s %s: status %d, want %d", c.method, c.target, w.Code, c.status)
		}
	}
	if len(tr.swarms) != 0 {
		t.Error("a swarm was made")
	}
}

// The handler behind a real server and a real client, where the local address
// comes from net/http.
func TestOverHTTP(t *testing.T) {
	srv := httptest.NewServer(New(Config{}))
	defer srv.Close()
	res, err := srv.Client().Get(srv.URL + "/announce?" + good)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	v, err := decodeAll(string(body))
	if err != nil || res.Header.Get("Content-Type") != "text/plain" {
		t.Fatalf("%q %v %v", body, res.Header, err)
	}
	wantCounts(t, v.(map[string]any), 0, 1, 0)
}

func FuzzAnnounce(f *testing.F) {
	for _, q := range []string{
		"", good, good + "&compact=0&no_peer_id=1", good + "&event=stopped", good + "&event=completed&left=0",
		good + "&numwant=-1&key=abc&supportcrypto=1", good + "&ip=10.0.0.9&ipv6=%5Bfd00::1%5D:7&ipv4=1.2.3.4:5",
		"info_hash=%00%01%02%03%04%05%06%07%08%09%0a%0b%0c%0d%0e%0f%10%11%12%13&peer_id=-XX0000-000000000001&port=1",
		"info_hash=%zz", "info_hash&&=;", good + "&left=-9223372036854775809",
	} {
		f.Add("/announce", q, "10.0.0.1:1", true)
		f.Add("/scrape", q, "[::ffff:127.0.0.1]:1", false)
	}
	f.Fuzz(func(t *testing.T, path, query, remote string, trust bool) {
		tr := New(Config{TrustIPParam: trust})
		serveRaw(t, tr, "/announce", good)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path, r.URL.RawQuery, r.RemoteAddr = path, query, remote
		w := httptest.NewRecorder()
		tr.ServeHTTP(w, r)
		if w.Code == http.StatusNotFound {
			return
		}
		v, err := decodeAll(w.Body.String())
		answer, ok := v.(map[string]any)
		if w.Code != http.StatusOK || err != nil || !ok {
			t.Fatalf("status %d, answer %q: %v", w.Code, w.Body, err)
		}
		if _, bad := answer["failure reason"]; bad && len(answer) != 1 {
			t.Fatalf("a refusal with more in it: %q", w.Body)
		} else if !bad && answer["files"] == nil {
			addrs(t, answer)
		}
	})
}
