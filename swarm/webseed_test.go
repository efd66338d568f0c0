package swarm

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dcfs/cache/piece"
)

func TestWebGate(t *testing.T) {
	now := time.Now()
	none, some := lack{}, lack{nobody: []piece.Index{1}, others: []piece.Index{2}}
	served := lack{others: []piece.Index{2, 3}}
	type look struct {
		at     time.Duration
		useful int64
		lack   lack
		want   string
	}
	for name, looks := range map[string][]look{
		"peers serve":          {{0, 1, some, ""}, {3 * time.Second, 2, some, ""}, {6 * time.Second, 3, some, ""}},
		"nobody has it":        {{0, 0, some, ""}, {3 * time.Second, 0, some, ""}, {4 * time.Second, 0, some, "nobody"}},
		"nor later":            {{0, 0, some, ""}, {4 * time.Second, 0, some, "nobody"}, {5 * time.Second, 99, some, "nobody"}},
		"until somebody has":   {{0, 0, some, ""}, {4 * time.Second, 0, some, "nobody"}, {5 * time.Second, 0, served, ""}, {6 * time.Second, 9, some, ""}},
		"peers are silent":     {{0, 0, served, ""}, {webSilence - 1, 0, served, ""}, {webSilence, 0, served, "others"}, {webSilence + 1, 1, served, ""}},
		"nothing is wanted":    {{0, 0, none, ""}, {time.Hour, 0, none, ""}, {time.Hour + 1, 0, some, ""}, {time.Hour + 4*time.Second, 0, some, "nobody"}},
		"peers stop to serve":  {{0, 1, some, ""}, {3 * time.Second, 2, some, ""}, {7 * time.Second, 2, some, "nobody"}},
		"a look after a while": {{0, 0, some, ""}, {time.Hour, 5, some, ""}},
	} {
		g := webGate{patience: 4 * time.Second}
		for i, l := range looks {
			got := ""
			if g.quiet(now.Add(l.at), l.useful) {
				switch list := g.choose(now.Add(l.at), l.lack); {
				case len(list) == 0:
				case list[0] == 1:
					got = "nobody"
				default:
					got = "others"
				}
			}
			if got != l.want {
				t.Errorf("%s, look %d: %q, want %q", name, i, got, l.want)
			}
		}
	}
}

// webServer serves the files of newRelease below /base/synthetic.
type webServer struct {
	*httptest.Server
	asked atomic.Int64
}

func newWebServer(t *testing.T, rel *release, spoil func(w http.ResponseWriter, r *http.Request) bool) *webServer {
	s := &webServer{}
	cut := rel.layout.Total / 3
	files := map[string][]byte{"/base/synthetic/a": rel.data[:cut], "/base/synthetic/b/c #%": rel.data[cut:]}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if spoil != nil && spoil(w, r) {
			return
		}
		data, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	return s
}

// fallback is a host's web seeds.
func fallback(rel *release, urls ...string) WebSeeds {
	cut := rel.layout.Total / 3
	return WebSeeds{URLs: urls, Name: "synthetic", Patience: time.Second, Parts: func(off, n int64) (out []Part) {
		if head := min(n, cut-off); head > 0 {
			out, off, n = append(out, Part{"a", off, head}), off+head, n-head
		}
		if n > 0 {
			out = append(out, Part{"b/c #%", off - cut, n})
		}
		return out
	}}
}

// TestWebSeedAlone: with no peer everything comes from the web seed that works,
// and a wrong or missing one harms nothing.
func TestWebSeedAlone(t *testing.T) {
	rel := newRelease(t, 2<<20+77, 64<<10)
	good := newWebServer(t, rel, nil)
	wrong := newWebServer(t, rel, func(w http.ResponseWriter, r *http.Request) bool {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(make([]byte, rel.layout.Total)))
		return true
	})
	whole := newWebServer(t, rel, func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = w.Write(rel.data)
		return true
	})
	for _, trade := range []bool{true, false} {
		h := newHost(t, rel, false, NodeConfig{Trade: trade})
		spec := h.spec()
		spec.WebSeeds = fallback(rel, wrong.URL, good.URL+"/nothing/here/", whole.URL, good.URL+"/base")
		h.join(spec)
		h.mustComplete()
		st, from, trouble := h.swarm.Stats(), h.swarm.Sources(), h.swarm.Trouble()
		if from.Web != rel.layout.Total || st.Useful != rel.layout.Total || from.Peers+from.Origin != 0 || from.First.IsZero() {
			t.Errorf("trade %v: %+v, %+v", trade, from, st)
		}
		if !errors.Is(trouble.WebSeeds[wrong.URL], errWebWrong) || trouble.HashFailures == 0 || trouble.WebSeeds[good.URL+"/base"] != nil ||
			!errors.Is(trouble.WebSeeds[good.URL+"/nothing/here/"], errWebAnswer) {
			t.Errorf("trade %v: %+v", trade, trouble)
		}
		if got := h.swarm.From(3); len(got) != 1 || got[0] != webSeedName {
			t.Errorf("piece 3 is from %q", got)
		}
		// Others get it from there.
		newHost(t, rel, false, NodeConfig{Trade: trade}).joinPeers(h).mustComplete()
	}
}

// TestWebSeedWaits: while a peer serves, nothing is asked of the web seed,
// however slow that is; what no peer has is.
func TestWebSeedWaits(t *testing.T) {
	for _, trade := range []bool{true, false} {
		rel := newRelease(t, 2<<20, 64<<10)
		server := newWebServer(t, rel, nil)
		seed := newHost(t, rel, true, NodeConfig{Trade: trade}).joinPeers()
		h := newHost(t, rel, false, NodeConfig{Trade: trade, Gate: rated(0, 768<<10)})
		spec := h.spec()
		spec.Peers, spec.WebSeeds = []string{seed.node.Addr()}, fallback(rel, server.URL+"/base/")
		h.join(spec)
		h.mustComplete()
		if from := h.swarm.Sources(); from.Web != 0 || server.asked.Load() != 0 {
			t.Errorf("trade %v: %+v, %d requests", trade, from, server.asked.Load())
		}

		half := newHost(t, rel, false, NodeConfig{Trade: trade})
		half.joinPeers(h)
		half.mustComplete()
		seed.leave()
		h.leave()
		part := rel.all().End / 2
		some := newHost(t, rel, false, NodeConfig{Trade: trade}).joinPart(half, piece.Range{First: part, End: rel.all().End})
		eventually(t, func() bool { return some.store.Stats().Pieces == int(part) }, func() string { return "half does not come" })
		half.leave()
		late := newHost(t, rel, false, NodeConfig{Trade: trade})
		spec = late.spec()
		spec.Peers, spec.WebSeeds = []string{some.node.Addr()}, fallback(rel, server.URL+"/base/")
		late.join(spec)
		late.mustComplete()
		if from := late.swarm.Sources(); from.Web != rel.layout.Total/2 || from.Peers != rel.layout.Total/2 {
			t.Errorf("trade %v: half of it is at a peer: %+v", trade, from)
		}
	}
}

// joinPart joins with a peer and wants only some pieces.
func (h *host) joinPart(peer *host, r piece.Range) *host {
	h.t.Helper()
	spec := h.spec()
	spec.Peers = []string{peer.node.Addr()}
	s, err := h.node.Join(h.t.Context(), spec)
	if err != nil {
		h.t.Fatal(err)
	}
	h.swarm = s
	h.store.Attach(s)
	s.Prefetch(r, piece.Background)
	return h
}

// TestWebSeedForReaders: a reader need not wait for what no peer has until
// peers are silent for long.
func TestWebSeedForReaders(t *testing.T) {
	rel := newRelease(t, 1<<20, 64<<10)
	server := newWebServer(t, rel, nil)
	h := newHost(t, rel, false, NodeConfig{Trade: true})
	spec := h.spec()
	spec.WebSeeds = fallback(rel, server.URL+"/base/")
	spec.WebSeeds.Patience = time.Hour
	h.join(spec)
	buf := make([]byte, 100)
	if _, err := h.store.ReadAt(t.Context(), buf, 500_000); err != nil || !bytes.Equal(buf, rel.data[500_000:500_100]) {
		t.Fatalf("%v", err)
	}
	if n := h.store.Stats().Pieces; n != 1 {
		t.Errorf("%d pieces came for one read", n)
	}
}

func TestFileURL(t *testing.T) {
	for _, base := range []string{"http://h/d", "http://h/d/"} {
		if got := fileURL(base, "web-1", "a b/c?#%/ü"); got != "http://h/d/web-1/a%20b/c%3F%23%25/%C3%BC" {
			t.Error(got)
		}
	}
	if !strings.HasPrefix(errWebStalled.Error(), "no byte") {
		t.Error(errWebStalled)
	}
}
