package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// scrape reads /metrics of a process from inside its host.
func scrape(t *testing.T, h *lab.Host, base string) string {
	t.Helper()
	resp, err := h.Client().Get(base + "/metrics")
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != 200 {
		t.Fatalf("%s/metrics: %s: %s", base, resp.Status, text)
	}
	return string(text)
}

// figure is the value of one series; the name has its labels with it.
func figure(t *testing.T, text, series string) float64 {
	t.Helper()
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			must(t, err)
			return v
		}
	}
	t.Fatalf("no series %s in\n%s", series, text)
	return 0
}

// TestMetrics: an origin, a host that fetches from it, one that fetches from
// both, and one that has most of it already; what each says of itself is true.
func TestMetrics(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE)
	l := lab.New(t, "origin", "a", "b")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 40, 3, 1<<20)
	release := o.publish(source, "app/1")
	a, b := o.newNode(l.Host("a")), o.newNode(l.Host("b"))
	mountpoint := filepath.Join(a.Mnt(), "m")
	must(t, os.MkdirAll(mountpoint, 0o755))
	a.Shape(lab.Shape{Down: "16mbit"}) // so that a read has to wait
	pa := a.daemon("mount", "mount", "app/1", mountpoint, "--origin", o.url(), "--linger", "10m", "--at-end", "unmount",
		"--peer-listen", a.Addr+":7072", "--http", a.Addr+":7073")
	a.reach(pa, "app/1", "mounted", 30*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 { // the second time the kernel has it
		if out, err := a.Command(ctx, "cat", filepath.Join(mountpoint, "big/02.bin")).CombinedOutput(); err != nil {
			t.Fatalf("reading: %v: %s", err, out)
		}
	}
	a.reach(pa, "app/1", "lingering", time.Minute)
	base := "http://" + a.Addr + ":7073"
	text := scrape(t, a.Host, base)
	if n := figure(t, text, `dcfs_received_bytes_total{source="origin"}`); n < float64(release.Bytes) {
		t.Errorf("%.0f bytes of %d came from the origin", n, release.Bytes)
	}
	for series, want := range map[string]float64{
		`dcfs_received_bytes_total{source="peer"}`: 0, `dcfs_received_bytes_total{source="reuse"}`: 0,
		`dcfs_release_state{state="lingering"}`: 1, `dcfs_release_state{state="mounted"}`: 0, `dcfs_waiting_reads`: 0,
		`dcfs_release_verified_pieces`: float64(release.Pieces), `dcfs_release_pieces`: float64(release.Pieces),
		`dcfs_read_errors_total`: 0, `dcfs_hash_failures_total`: 0, `dcfs_disk_failing`: 0, `dcfs_failing_trackers`: 0,
		fmt.Sprintf(`dcfs_release_info{infohash="%s",version="app/1"}`, release.Infohash): 1,
	} {
		if got := figure(t, text, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	if n := figure(t, text, `dcfs_read_duration_seconds_count{result="miss"}`); n < 1 {
		t.Errorf("%v reads waited", n)
	}
	if resp, err := a.Client().Get(base + "/healthz"); err != nil || resp.StatusCode != 200 {
		t.Errorf("healthz: %v, %v", resp, err)
	}

	o.proc.Kill() // a is the only source of b
	pb := b.daemon("fetch", "fetch", release.file, filepath.Join(b.Releases(), "1"), "--peer", a.Addr+":7072",
		"--linger", "10m", "--http", b.Addr+":7073")
	b.reach(pb, "app/1", "lingering", time.Minute)
	text = scrape(t, b.Host, "http://"+b.Addr+":7073")
	if n := figure(t, text, `dcfs_received_bytes_total{source="peer"}`); n < float64(release.Bytes) {
		t.Errorf("%.0f bytes of %d came from peers", n, release.Bytes)
	}
	lintMetrics(t, text)
	stop(t, pb)

	o.start()
	must(t, os.WriteFile(filepath.Join(source, "new"), []byte("new"), 0o644))
	o.publish(source, "app/2")
	pb = b.daemon("again", "fetch", "app/2", filepath.Join(b.Releases(), "2"), "--origin", o.url(), "--linger", "10m", "--http", b.Addr+":7073")
	b.reach(pb, "app/2", "lingering", time.Minute)
	if n := figure(t, scrape(t, b.Host, "http://"+b.Addr+":7073"), `dcfs_received_bytes_total{source="reuse"}`); n < 2<<20 {
		t.Errorf("%.0f bytes were reused", n)
	}
	b.fails(78, []string{"--http"}, "fetch", "app/1", filepath.Join(b.Releases(), "x"), "--origin", o.url(), "--http", b.Addr+":7073")

	seed, err := o.Client().Get(o.url() + "/data/app/2/big/00.bin")
	must(t, err)
	n, err := io.Copy(io.Discard, seed.Body)
	must(t, err)
	seed.Body.Close()
	text = scrape(t, o.Host, o.url())
	lintMetrics(t, text)
	if sent := figure(t, text, `dcfs_origin_webseed_sent_bytes_total{version="app/2"}`); n != 1<<20 || sent != float64(n) {
		t.Errorf("the web seed sent %d bytes and counts %.0f", n, sent)
	}
	// Hosts report some time after they change.
	if err := lab.Poll(ctx, func() (bool, error) {
		return strings.Contains(scrape(t, o.Host, o.url()), `dcfs_origin_hosts{state="lingering",version="app/2"} 1`), nil
	}); err != nil {
		t.Errorf("no host lingers: %v", err)
	}
	if figure(t, text, "dcfs_origin_releases") != 2 || figure(t, text, `dcfs_origin_sent_bytes_total{version="app/2"}`) < 3 ||
		figure(t, text, `dcfs_origin_http_requests_total{code="200",handler="announce"}`) < 1 {
		t.Errorf("the origin's figures:\n%s", text)
	}
	monitored(t, text+scrape(t, a.Host, base))
	stop(t, pb)
	stop(t, pa)
}

// lintMetrics has promtool look at names, units and help texts.
func lintMetrics(t *testing.T, text string) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Log("promtool is not installed: names and units are not checked")
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

var metricName = regexp.MustCompile(`\bdcfs_[a-z_]+`)

// monitored checks that alerts and dashboard use series that there are.
func monitored(t *testing.T, exposed string) {
	t.Helper()
	there := map[string]bool{}
	for _, name := range metricName.FindAllString(exposed, -1) {
		there[name] = true
	}
	for _, file := range []string{"alerts.yml", "grafana.json"} {
		text, err := os.ReadFile(filepath.Join(moduleRoot, "docs/monitoring", file))
		must(t, err)
		names := metricName.FindAllString(string(text), -1)
		if len(names) < 10 {
			t.Errorf("%s uses %d series", file, len(names))
		}
		for _, name := range names {
			if !there[name] {
				t.Errorf("%s uses %s, which nobody exposes", file, name)
			}
		}
	}
}

// TestAlertRules has promtool read the rules, and try them on made-up figures.
func TestAlertRules(t *testing.T) {
	lab.Require(t, lab.Tool("promtool"))
	dir := filepath.Join(moduleRoot, "docs/monitoring")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.CommandContext(ctx, "promtool", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// dashboard is what Grafana loads.
type dashboard struct {
	Title  string `json:"title"`
	UID    string `json:"uid"`
	Panels []struct {
		ID      int    `json:"id"`
		Type    string `json:"type"`
		Title   string `json:"title"`
		GridPos struct{ X, Y, W, H int }
		Targets []panelQuery `json:"targets"`
	} `json:"panels"`
}

type panelQuery struct {
	Expr string `json:"expr"`
}

// over is the query of all instances, with rates over a span, as Prometheus takes it.
func (q panelQuery) over(span string) string {
	return strings.NewReplacer("$__rate_interval", span, "$instance", ".*").Replace(q.Expr)
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(moduleRoot, "docs/monitoring/grafana.json"))
	must(t, err)
	must(t, json.Unmarshal(text, &d))
	return d
}

// TestDashboard holds the dashboard to what Grafana needs to load it: panels
// that do not overlap, with queries that promtool takes for PromQL.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	taken, ids := map[[2]int]string{}, map[int]bool{}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 || p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q: an id of its own, a title and queries are wanted", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies on %q or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for i, q := range p.Targets {
			expr, err := json.Marshal(q.over("5m"))
			must(t, err)
			fmt.Fprintf(&rules, "  - {record: 'panel_%d_%d', expr: %s}\n", p.ID, i, expr)
		}
	}
	if d.Title == "" || d.UID == "" || len(ids) < 10 {
		t.Errorf("the dashboard %q (%s) has %d panels", d.Title, d.UID, len(ids))
	}
	lab.Require(t, lab.Tool("promtool"))
	file := filepath.Join(t.TempDir(), "rules.yml")
	must(t, os.WriteFile(file, []byte(rules.String()), 0o644))
	if out, err := exec.CommandContext(t.Context(), "promtool", "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool does not take the queries: %v\n%s", err, out)
	}
}
