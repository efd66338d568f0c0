package board

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"dcfs/cache/piece"
	"dcfs/cmd/internal/control"
)

const hash = "0123456789abcdef0123456789abcdef01234567"

// bench is a board with one release of 10 pieces, and a clock.
type bench struct {
	*Board
	now   time.Time
	items []Item
	peers map[string][]Other
}

func newBench(change func(*Config)) *bench {
	b := &bench{now: time.Unix(1_700_000_000, 0)}
	b.items = []Item{{Base: Base{Version: "app/1", Infohash: hash, Bytes: 1000, Pieces: 10, PieceLength: 100}}}
	cfg := Config{
		Kind: KindOrigin, Name: "o", Now: func() time.Time { return b.now },
		Releases: func() []Item { return b.items },
		Others:   func() map[string][]Other { return b.peers },
		Find: func(h string) (Base, bool) {
			for _, it := range b.items {
				if it.Infohash == h {
					return it.Base, true
				}
			}
			return Base{}, false
		},
	}
	if change != nil {
		change(&cfg)
	}
	b.Board = New(cfg)
	return b
}

// report is what host n says when it has some of the pieces.
func report(n, have int, state control.State) (control.Report, netip.Addr) {
	set := piece.NewSet(10)
	for i := range piece.Index(have) {
		set.Add(i)
	}
	r := control.Report{Host: fmt.Sprintf("h%d", n), Cells: Cells(set)}
	r.Infohash, r.State, r.PeerListen = hash, state, "[::]:7072"
	r.PiecesHave, r.BytesHave, r.DownRate = have, int64(have)*100, 50
	return r, netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func (b *bench) tell(t *testing.T, n, have int, state control.State) {
	t.Helper()
	if _, err := b.Accept(report(n, have, state)); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) kinds() (out []string) {
	for _, e := range b.events.newest() {
		out = append([]string{strings.TrimSpace(fmt.Sprintf("%s %s %d", e.Kind, e.Host, e.More))}, out...)
	}
	return out
}

// TestLife follows hosts from their coming to their end, and what is said of it.
func TestLife(t *testing.T) {
	b := newBench(nil)
	b.tell(t, 1, 0, control.Mounted)
	b.tell(t, 2, 10, control.Lingering)
	b.now = b.now.Add(3 * time.Second)
	b.tell(t, 1, 4, control.Mounted)
	s := b.look()
	r := s.releases["app/1"].release
	if r.Hosts != 2 || r.Whole != 1 || r.Progress != 0.7 || r.DownRate != 100 || r.Rarest != 1 || r.Attention != 0 {
		t.Errorf("%+v", r)
	}
	if got := fmt.Sprint(r.Cells); got != "[2 2 2 2 1 1 1 1 1 1]" {
		t.Errorf("cells %s", got)
	}
	// Nothing comes for a while, although host 1 reports.
	for range 10 {
		b.now = b.now.Add(3 * time.Second)
		b.tell(t, 1, 4, control.Mounted)
		b.tell(t, 2, 10, control.Lingering)
	}
	if h := b.look().releases["app/1"].hosts[0]; !h.Stalled || h.Name != "h1" {
		t.Errorf("not stalled: %+v", h)
	}
	// It goes on, straight to the end; host 2 falls silent.
	b.now = b.now.Add(3 * time.Second)
	b.tell(t, 1, 10, control.Lingering)
	b.now = b.now.Add(10 * time.Second)
	b.tell(t, 1, 10, control.Lingering)
	b.now = b.now.Add(10 * time.Second)
	b.tell(t, 1, 10, control.Done)
	want := "[came h1 1 stalled h1 0 resumed h1 0 complete h1 0 materialised h1 0 lost h2 0 left h1 0]"
	if got := fmt.Sprint(b.kinds()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if r = b.look().releases["app/1"].release; r.Hosts != 0 || r.States["done"] != 1 || r.States["lost"] != 1 || r.Attention != 1 {
		t.Errorf("%+v", r)
	}
	b.now = b.now.Add(time.Hour)
	if r = b.look().releases["app/1"].release; len(r.States) != 0 || len(b.hosts) != 0 || len(b.perAddr) != 0 {
		t.Errorf("an hour later: %+v", r)
	}
	b.items = append(b.items, Item{Base: Base{Version: "app/2", Infohash: strings.Repeat("2", 40), Bytes: 1, Pieces: 1}})
	b.now = b.now.Add(time.Minute)
	b.Look()
	if got := b.kinds(); got[len(got)-1] != "published  0" {
		t.Errorf("%q", got)
	}
}

// TestOthers: who announces itself and does not report is there as well, once.
func TestOthers(t *testing.T) {
	b := newBench(nil)
	b.tell(t, 1, 10, control.Lingering)
	b.peers = map[string][]Other{hash: {
		{Addr: netip.MustParseAddrPort("10.0.0.1:7072"), Whole: true},
		{Addr: netip.MustParseAddrPort("[::ffff:10.0.0.9]:51413"), Client: "TR4060", Have: 500},
	}}
	hosts := b.look().releases["app/1"].hosts
	if len(hosts) != 2 || hosts[0].Addr != "10.0.0.9:51413" || hosts[0].State != "fetching" || hosts[0].Progress != 0.5 || hosts[1].Addr != "10.0.0.1:7072" {
		t.Errorf("%+v", hosts)
	}
}

// TestSharedInfohash: two versions with one info-hash are one swarm, whose hosts
// count once.
func TestSharedInfohash(t *testing.T) {
	b := newBench(nil)
	other := b.items[0]
	other.Version = "other/1"
	b.items = append(b.items, other)
	b.tell(t, 1, 10, control.Lingering)
	b.tell(t, 2, 5, control.Mounted)
	b.peers = map[string][]Other{hash: {{Addr: netip.MustParseAddrPort("10.0.0.9:51413"), Client: "TR4060", Have: 500}}}
	s := b.look()
	if o := s.overview; o.Hosts != 3 || o.Whole != 1 || o.Total != 2 {
		t.Errorf("%+v", o.Sums)
	}
	for _, v := range []string{"app/1", "other/1"} {
		if c := s.releases[v]; len(c.hosts) != 3 || c.release.Hosts != 3 {
			t.Errorf("%s: %+v", v, c.release.Sums)
		}
	}
}

// TestStockClients: nobody reports for them, and they come and leave all the same;
// a dcfs host that only has not reported yet, or does not want to, is none of them.
func TestStockClients(t *testing.T) {
	b := newBench(nil)
	at := func(client string) Other {
		return Other{Addr: netip.MustParseAddrPort("10.0.0.9:51413"), Client: client}
	}
	look := func(now ...Other) string {
		b.now = b.now.Add(2 * time.Second)
		b.peers = map[string][]Other{hash: now}
		return strings.Join(func() []string { b.look(); return b.kinds() }(), ", ")
	}
	for _, step := range []struct {
		now  []Other
		want string
	}{
		{[]Other{at("dcfs/1")}, ""},
		{[]Other{at("aria2/1.36.0")}, "came 10.0.0.9:51413 0"},
		{[]Other{at("")}, "came 10.0.0.9:51413 0"}, // known to the tracker only
		{nil, "came 10.0.0.9:51413 0, left 10.0.0.9:51413 0"},
		{[]Other{at("aria2/1.36.0")}, "came 10.0.0.9:51413 0, left 10.0.0.9:51413 0, came 10.0.0.9:51413 0"},
	} {
		if got := look(step.now...); got != step.want {
			t.Errorf("%+v: %q, want %q", step.now, got, step.want)
		}
	}
	b.items = nil
	if b.now = b.now.Add(2 * time.Second); len(b.look().releases)+len(b.stock) != 0 {
		t.Errorf("a release that is gone is remembered: %v", b.stock)
	}
}

// TestBounds: nobody gets more room than there is, speaks too often, or makes
// a host of nonsense.
func TestBounds(t *testing.T) {
	b := newBench(func(c *Config) { c.Hosts, c.PerAddr = 3, 2 })
	r, from := report(1, 1, control.Mounted)
	for port, want := range map[string]error{"h:1": nil, "h:2": nil} {
		r.PeerListen = port
		if _, err := b.Accept(r, from); !errors.Is(err, want) {
			t.Errorf("%s: %v", port, err)
		}
	}
	r.PeerListen = "h:3"
	if _, err := b.Accept(r, from); !errors.Is(err, ErrTooMany) {
		t.Errorf("a third at one address: %v", err)
	}
	b.tell(t, 2, 1, control.Mounted)
	if _, err := b.Accept(report(3, 1, control.Mounted)); !errors.Is(err, ErrTooMany) {
		t.Errorf("a fourth: %v", err)
	}
	if _, err := b.Accept(report(2, 1, control.Mounted)); !errors.Is(err, ErrTooMany) {
		t.Errorf("twice at once: %v", err)
	}
	r, from = report(2, 1, "nonsense")
	if _, err := b.Accept(r, from); !errors.Is(err, ErrBad) {
		t.Errorf("no state: %v", err)
	}
	r.State, r.Infohash = control.Mounted, strings.Repeat("9", 40)
	if _, err := b.Accept(r, from); !errors.Is(err, ErrUnknown) {
		t.Errorf("no release: %v", err)
	}
	for i := range 10_000 {
		b.events.add(Event{Kind: fmt.Sprint(i), Time: b.now})
		b.events.add(Event{Kind: fmt.Sprint(i), Time: b.now, Bad: true})
	}
	if n := len(b.events.newest()); n != 2*MaxEvents {
		t.Errorf("%d events", n)
	}
}

// TestHostile: what a liar says is cut to size.
func TestHostile(t *testing.T) {
	b := newBench(nil)
	r, from := report(1, 0, control.Failed)
	long := strings.Repeat("é", 5000) + "\x00\u202e\n"
	r.Host, r.Rack, r.Reason, r.Bound = long, long, long, &control.Bound{Kind: long, Text: long}
	r.Version, r.BytesHave, r.PiecesHave, r.DownRate, r.EtaMS = long, 1<<62, 1<<40, -5, -1
	r.Cells, r.StateSince = make([]byte, 4000), time.Unix(1<<40, 0)
	r.Waiting = make([]control.Wait, 1000)
	for i := range r.Waiting {
		r.Waiting[i] = control.Wait{Path: long, AgeMS: -1 << 60}
	}
	if _, err := b.Accept(r, from); err != nil {
		t.Fatal(err)
	}
	d := b.look().releases["app/1"]
	raw, err := json.Marshal(d.hosts)
	if h := d.hosts[0]; err != nil || len(raw) > 8000 || h.Have != 1000 || h.DownRate != 0 || h.SinceMS != 0 || h.cells != nil {
		t.Errorf("%d bytes: %v %+v", len(raw), err, h)
	}
	for _, bad := range []string{"\x00", "\u202e", "\\u0000"} {
		if bytes.Contains(raw, []byte(bad)) {
			t.Errorf("%q came through", bad)
		}
	}
}

// TestHTTP: what is answered, to whom, and with which headers.
func TestHTTP(t *testing.T) {
	b := newBench(nil)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+control.ReportPath, b.Receive)
	for pattern, h := range b.Handlers() {
		mux.HandleFunc(pattern, h)
	}
	ask := func(method, path, kind, body string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(method, path, strings.NewReader(body))
		req.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, req)
		return w
	}
	r, _ := report(1, 3, control.Mounted)
	r.Host = "<b>x"
	good, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	const is = "application/json"
	for _, c := range []struct {
		name, kind, body string
		code             int
	}{
		{"good", is, string(good), 200},
		{"at once again", is, string(good), 429},
		{"as a web page could", "text/plain", string(good), 415},
		{"no JSON", is, "{", 400},
		{"too long", is, `{"host":"` + strings.Repeat("a", control.MaxReport) + `"}`, 400},
		{"another release", is, `{"infohash":"ff"}`, 404},
		{"no state", is, `{"infohash":"` + hash + `"}`, 400},
	} {
		if w := ask("POST", control.ReportPath, c.kind, c.body); w.Code != c.code || !strings.Contains(w.Body.String(), `"schema":1`) {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
	}
	for path, want := range map[string]string{
		"/": "&lt;b&gt;x", "/page.js": "'use strict'", "/page.css": "prefers-color-scheme", "/v1/board": `"kind":"origin"`,
		"/v1/hosts?release=app/1": `"matched":1`, "/v1/hosts?release=app/1&q=B%3EX&state=mounted": `"matched":1`,
		"/v1/hosts?release=app/1&q=nobody": `"hosts":[]`, "/v1/hosts?release=app/1&state=attention&offset=-1&limit=x": `"matched":0`,
		"/v1/hosts?release=no": ErrUnknown.Error(),
	} {
		w := ask("GET", path, "", "")
		if text := w.Body.String(); !strings.Contains(text, want) || strings.Contains(text, "<b>x") ||
			w.Header().Get("Content-Security-Policy") != policy || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v\n%.300s", path, w.Code, w.Header(), text)
		}
	}
	req := httptest.NewRequest("GET", "/page.js", nil)
	req.Header.Set("If-None-Match", ask("GET", "/page.js", "", "").Header().Get("ETag"))
	w := httptest.NewRecorder()
	if mux.ServeHTTP(w, req); w.Code != http.StatusNotModified {
		t.Errorf("the same script again: %d", w.Code)
	}
}

// TestTogether lets many report and look at the same time, for the race detector.
func TestTogether(t *testing.T) {
	b := newBench(func(c *Config) { c.Now = time.Now })
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range 100 {
				_, err := b.Accept(report(n*100+i, i%11, control.Mounted))
				if err != nil {
					t.Error(err)
				}
				b.look()
			}
		})
	}
	wg.Wait()
	b.view.Lock()
	b.last = nil
	b.view.Unlock()
	if n := b.look().overview.Hosts; n != 800 {
		t.Errorf("%d hosts", n)
	}
}

func TestCells(t *testing.T) {
	set := piece.NewSet(5000)
	if Cells(set) != nil {
		t.Error("of nothing")
	}
	for i := range piece.Index(2500) {
		set.Add(i)
	}
	c := Cells(set)
	if len(c) != control.MaxCells || c[0] != 255 || c[511] != 255 || c[512] != 0 {
		t.Errorf("%d cells: %v", len(c), c[508:516])
	}
	if s := strip(c, false, 5000); len(s) != stripCells || s[31] != 255 || s[32] != 0 {
		t.Errorf("strip %v", s)
	}
}

// FuzzReport: no report, whatever is in it, breaks the page or outgrows it.
func FuzzReport(f *testing.F) {
	r, from := report(1, 3, control.Mounted)
	seed, _ := json.Marshal(r)
	f.Add(seed)
	f.Add([]byte(`{"infohash":"` + hash + `","state":"failed","bound":{},"waiting":[{}],"cells":""}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r control.Report
		if json.Unmarshal(raw, &r) != nil {
			return
		}
		b := newBench(nil)
		if _, err := b.Accept(r, from); err != nil {
			return
		}
		if out, err := json.Marshal(b.look().releases["app/1"].hosts); err != nil || len(out) > 16<<10 {
			t.Errorf("%d bytes, %v", len(out), err)
		}
	})
}

// BenchmarkHosts is what 10,000 hosts cost an origin: one report, with its JSON,
// and one look at all of them.
func BenchmarkHosts(bm *testing.B) {
	const hosts, pieces = 10_000, 40_000
	b := newBench(nil)
	b.items[0].Pieces, b.items[0].Bytes = pieces, pieces*100
	set := piece.NewSet(pieces)
	for i := range piece.Index(pieces) {
		if i%3 == 0 {
			set.Add(i)
		}
	}
	body := func(n int) ([]byte, netip.Addr) {
		r, from := report(n, 3, control.Mounted)
		r.Cells, r.PiecesHave = Cells(set), set.Len()
		raw, err := json.Marshal(r)
		if err != nil {
			bm.Fatal(err)
		}
		return raw, from
	}
	take := func(raw []byte, from netip.Addr) {
		var r control.Report
		if err := json.Unmarshal(raw, &r); err != nil {
			bm.Fatal(err)
		}
		if _, err := b.Accept(r, from); err != nil {
			bm.Fatal(err)
		}
	}
	for n := range hosts {
		take(body(n))
	}
	bm.Run("report", func(bm *testing.B) {
		bm.ReportAllocs()
		b.now = b.now.Add(time.Second)
		raw, from := body(0)
		bm.SetBytes(int64(len(raw)))
		for n := 0; bm.Loop(); n++ {
			b.now = b.now.Add(2 * time.Millisecond) // 500 a second
			a := from.As4()
			a[1], a[2], a[3] = byte(n%hosts>>16), byte(n%hosts>>8), byte(n%hosts)
			take(raw, netip.AddrFrom4(a))
		}
	})
	bm.Run("look", func(bm *testing.B) {
		bm.ReportAllocs()
		for bm.Loop() {
			b.compile(b.now)
		}
	})
}
