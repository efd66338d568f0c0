package metrics

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	text, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(text)
}

// TestNode: a sample comes out under its names, each read counts once, and
// health has its own answer.
func TestNode(t *testing.T) {
	reads := NewReads()
	reads.Done(true, 50*time.Microsecond, nil)
	reads.Done(false, 2*time.Second, nil)
	reads.Done(false, time.Minute, errors.New("in vain"))
	sample := Sample{Version: "a/1", Infohash: "ff", States: []string{"mounted", "failed"}, State: "mounted",
		Received: 100, Useful: 60, FromOrigin: 10, FromPeers: 20, FromReuse: 30, CacheHits: 5, DiskFails: true,
		Since: time.UnixMilli(1500), OldestWait: 1500 * time.Millisecond}
	var health error
	mux := Mux(Handler("v1", Node(func() Sample { return sample }), reads), func() error { return health })
	code, text := get(t, mux, "/metrics")
	if code != http.StatusOK {
		t.Fatal(code, text)
	}
	for _, line := range []string{
		`dcfs_build_info{version="v1"} 1`, `dcfs_release_info{infohash="ff",version="a/1"} 1`,
		`dcfs_release_state{state="mounted"} 1`, `dcfs_release_state{state="failed"} 0`,
		`dcfs_release_state_timestamp_seconds 1.5`, `dcfs_oldest_wait_seconds 1.5`,
		`dcfs_received_bytes_total{source="origin"} 10`, `dcfs_received_bytes_total{source="peer"} 20`,
		`dcfs_received_bytes_total{source="reuse"} 30`, `dcfs_wasted_bytes_total 40`,
		`dcfs_cache_lookups_total{result="hit"} 5`, `dcfs_disk_failing 1`, `dcfs_read_errors_total 1`,
		`dcfs_read_duration_seconds_bucket{result="hit",le="0.0001"} 1`, `dcfs_read_duration_seconds_bucket{result="miss",le="1"} 0`,
		`dcfs_read_duration_seconds_count{result="miss"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	if code, text := get(t, mux, "/healthz"); code != http.StatusOK || text != "ok\n" {
		t.Errorf("well: %d %q", code, text)
	}
	health = errors.New("the disk is full")
	if code, text := get(t, mux, "/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "disk is full") {
		t.Errorf("ill: %d %q", code, text)
	}
	if code, _ := get(t, mux, "/other"); code != http.StatusNotFound {
		t.Errorf("another path: %d", code)
	}
}
