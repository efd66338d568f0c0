package origin

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dcfs/cache"
	"dcfs/swarm"
)

// TestNoWayAround: nothing is published, and no trace is taken, without the
// token for it, however the request is spelt.
func TestNoWayAround(t *testing.T) {
	lib, rel := traced(t, "")
	raw := rel.mi.Encode()
	payload, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(lib.dir)), "src/a"))
	must(t, err)
	upload := append(append(binary.BigEndian.AppendUint64(nil, uint64(len(raw))), raw...), payload...)
	serving := func(publish, trace string) http.Handler {
		memory, err := cache.NewMemory(1 << 20)
		must(t, err)
		t.Cleanup(memory.Close)
		node, err := swarm.NewNode(swarm.NodeConfig{Listen: "127.0.0.1:0"})
		must(t, err)
		t.Cleanup(func() { must(t, node.Close()) })
		s := &service{shelf: newShelf(lib, node, memory, quiet), token: publish, traces: newTraces(lib), traceToken: trace,
			log: quiet, started: time.Now(), requests: newRequests()}
		t.Cleanup(s.shelf.close)
		s.prepare()
		return s.handler()
	}
	with, without := serving("publish-me", "trace-me"), serving("", "")
	ask := func(h http.Handler, method, path, auth string, body []byte) int {
		r := httptest.NewRequest(method, "http://origin"+path, bytes.NewReader(body))
		if auth != "" {
			r.Header.Set("Authorization", auth)
		}
		r.Header.Set("X-HTTP-Method-Override", "PUT")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	bad := []string{"", "Bearer", "Bearer ", "Bearer  ", "Bearer publish-m", "Bearer publish-me2", "Bearer PUBLISH-ME", "bearer trace-me",
		"Basic cHVibGlzaC1tZTo=", "Bearer \x00", "Bearer publish-me,trace-me", "trace-m"}
	for _, method := range []string{"PUT", "POST", "PATCH", "DELETE", "put", "MKCOL"} {
		for _, path := range []string{"/v1/releases/w", "/v1/releases/w.torrent", "/v1/releases/v.trace", "/v1/releases/v%2Etrace", "/v1/releases/v%2etrace",
			"/v1/releases/a/../w", "/v1//releases/w", "/v1/releases//w", "/v1/releases/w/", "/data/v/a", "/v1/releases"} {
			for _, auth := range bad {
				for name, h := range map[string]http.Handler{"tokens": with, "no tokens": without} {
					if code := ask(h, method, path, auth, upload); code < 300 || code >= 500 {
						t.Errorf("%s: %s %s with %q: %d", name, method, path, auth, code)
					}
				}
			}
		}
	}
	// One token is not the other, and with none configured nobody gets in.
	trace := []byte(recorded("v", "a"))
	for _, tc := range []struct {
		h          http.Handler
		path, auth string
		body       []byte
		want       int
	}{
		{with, "/v1/releases/w", "Bearer trace-me", upload, http.StatusForbidden},
		{without, "/v1/releases/w", "Bearer publish-me", upload, http.StatusForbidden},
		{without, "/v1/releases/v.trace", "Bearer trace-me", trace, http.StatusForbidden},
		{with, "/v1/releases/v.trace", "Bearer trace-me", trace, http.StatusCreated},
		{with, "/v1/releases/v", "Bearer publish-me", upload, http.StatusOK},
	} {
		if code := ask(tc.h, "PUT", tc.path, tc.auth, tc.body); code != tc.want {
			t.Errorf("PUT %s with %q: %d, want %d", tc.path, tc.auth, code, tc.want)
		}
	}
	entries, err := os.ReadDir(lib.dir)
	must(t, err)
	for _, e := range entries {
		if name := e.Name(); name != "v" && name[0] != '.' {
			t.Errorf("%s is in the library", name)
		}
	}
}
