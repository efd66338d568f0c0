package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// TestPrometheus has a Prometheus server watch an origin and a host: it takes the
// alert rules of docs/monitoring, evaluates them, and answers each query of the
// dashboard.
func TestPrometheus(t *testing.T) {
	lab.Require(t, lab.Root, lab.Tool("prometheus"))
	t.Parallel()
	l := lab.New(t, "origin", "a", "watcher")
	o, a := newOrigin(t, l.Host("origin")), l.Host("a")
	release := o.publish(sampleTree(t, 20, 2, 1<<20), "v")
	n := o.newNode(a)
	p := n.daemon("fetch", "fetch", "v", filepath.Join(n.Releases(), "v"), "--origin", o.url(), "--linger", "10m", "--http", a.Addr+":7073")
	n.reach(p, "v", "lingering", 30*time.Second)

	w := watcher{t: t, Host: l.Host("watcher")}
	w.start(o.Addr+":"+originPort, a.Addr+":7073")
	w.until("both are watched", func() bool { return len(w.query(`up == 1`)) == 2 })
	w.until("the rules are evaluated", w.rulesAreWell)
	if got := w.query(fmt.Sprintf(`dcfs_release_info{infohash="%s",version="v"}`, release.Infohash)); len(got) == 0 {
		t.Error("the release is not seen")
	}
	if got := w.query(`ALERTS`); len(got) != 0 {
		t.Errorf("alerts where all is well: %v", got)
	}
	var queries []string
	for _, p := range readDashboard(t).Panels {
		for _, q := range p.Targets {
			queries = append(queries, q.over("5s"))
		}
	}
	w.until("the dashboard shows something", func() bool { // rates take some samples
		answered := 0
		for _, q := range queries {
			if len(w.query(q)) > 0 {
				answered++
			}
		}
		return answered > len(queries)*2/3 // nothing is mounted here
	})
	p.Kill()
	w.until("it is missed", func() bool { return len(w.query(`up == 0`)) == 1 })
	stop(t, w.process)
}

// watcher is a host with Prometheus.
type watcher struct {
	*lab.Host
	t       *testing.T
	process *lab.Process
}

func (w *watcher) start(targets ...string) {
	w.t.Helper()
	rules, err := filepath.Abs(filepath.Join(moduleRoot, "docs/monitoring/alerts.yml"))
	must(w.t, err)
	list, err := json.Marshal(targets)
	must(w.t, err)
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\n"+
		"scrape_configs:\n- {job_name: dcfs, static_configs: [{targets: %s}]}\n", rules, list)
	file := filepath.Join(w.Dir, "prometheus.yml")
	must(w.t, os.WriteFile(file, []byte(config), 0o644))
	w.process = w.Start("prometheus", nil, "prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(w.Dir, "tsdb"),
		"--web.listen-address="+w.Addr+":9090")
	w.until("prometheus is there", func() bool {
		res, err := w.Client().Get("http://" + w.Addr + ":9090/-/ready")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == 200
	})
}

func (w *watcher) until(what string, is func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	if err := lab.Poll(ctx, func() (bool, error) { return is(), nil }); err != nil {
		w.t.Fatalf("%s: %v\n%s", what, err, w.process.Tail(20))
	}
}

// api asks the server; what it does not take fails the test.
func (w *watcher) api(path string, into any) {
	w.t.Helper()
	res, err := w.Client().Get("http://" + w.Addr + ":9090/api/v1/" + path)
	must(w.t, err)
	defer res.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	must(w.t, json.NewDecoder(res.Body).Decode(&answer))
	if answer.Status != "success" {
		w.t.Fatalf("%s: %s", path, answer.Error)
	}
	must(w.t, json.Unmarshal(answer.Data, into))
}

func (w *watcher) query(expr string) []any {
	w.t.Helper()
	var data struct{ Result []any }
	w.api("query?query="+url.QueryEscape(expr), &data)
	return data.Result
}

// rulesAreWell says whether all rules were evaluated, and well.
func (w *watcher) rulesAreWell() bool {
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	w.api("rules", &data)
	n := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			if r.LastError != "" {
				w.t.Fatalf("rule %s: %s", r.Name, r.LastError)
			}
			if r.Health != "ok" {
				return false
			}
			n++
		}
	}
	return n > 5
}
