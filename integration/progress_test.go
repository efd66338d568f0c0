package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// progressLine is what the tests read of a line of progress.
type progressLine struct {
	Schema   int       `json:"schema"`
	Time     time.Time `json:"time"`
	Progress struct {
		Stage       string   `json:"stage"`
		Release     string   `json:"release"`
		Bytes       int64    `json:"bytes"`
		BytesHave   int64    `json:"bytes_have"`
		FirstByteMS int64    `json:"first_byte_ms"`
		DownRate    int64    `json:"down_rate"`
		UpRate      int64    `json:"up_rate"`
		Peers       int      `json:"peers"`
		OriginShare *float64 `json:"origin_share"`
		EtaMS       int64    `json:"eta_ms"`
		Bound       string   `json:"bound"`
	} `json:"progress"`
}

// progressLines are the lines of JSON among what went to stderr.
func progressLines(t *testing.T, stderr string) (out []progressLine) {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(stderr))
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "{") {
			continue
		}
		var l progressLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil || l.Schema != 1 || l.Time.IsZero() {
			t.Errorf("no progress: %v: %s", err, lines.Text())
		}
		out = append(out, l)
	}
	return out
}

// TestProgress: with --json, stderr has a line of JSON every second and at each
// stage, and stdout the result alone; on a terminal there is a bar.
func TestProgress(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Root, lab.Tool("script"))
	l := lab.New(t, "origin", "a")
	o := newOrigin(t, l.Host("origin"))
	p := o.publish(sampleTree(t, 5, 2, 3<<20), "app/1")
	a := o.newNode(l.Host("a"))
	a.Shape(lab.Shape{Down: "12mbit"})
	fetch := func(dest string, more ...string) []string {
		return append([]string{"fetch", "app/1", filepath.Join(a.Releases(), dest), "--origin", o.url(), "--linger", "1s", "--json",
			"--reuse", filepath.Join(a.Dir, "none")}, more...)
	}
	r := a.dcfs(fetch("1")...)
	if r.code != 0 || strings.Count(strings.TrimSpace(r.stdout), "\n") != 0 || !json.Valid([]byte(r.stdout)) {
		t.Fatalf("%v", r)
	}
	all := progressLines(t, r.stderr)
	var stages []string
	var have, moving int64
	for _, line := range all {
		x := line.Progress
		if x.BytesHave < have || x.Release != "app/1" {
			t.Errorf("goes back: %+v", x)
		}
		have = x.BytesHave
		if len(stages) == 0 || stages[len(stages)-1] != x.Stage {
			stages = append(stages, x.Stage)
		}
		if x.BytesHave > 0 && x.BytesHave < x.Bytes && x.DownRate > 0 && x.Peers == 1 && x.EtaMS > 0 && x.FirstByteMS > 0 &&
			x.OriginShare != nil && *x.OriginShare == 1 && x.Bound != "" { // by the network, or by a machine that is busy
			moving++
		}
	}
	if want := []string{"announced", "complete", "materialised", "lingering", "done"}; !slices.Equal(stages, want) {
		t.Errorf("stages %q, want %q", stages, want)
	}
	if moving == 0 || have < p.Bytes {
		t.Errorf("%d of %d lines say all of a transfer on its way: %+v", moving, len(all), all)
	}
	if r = a.dcfs(fetch("2", "--quiet")...); r.code != 0 || len(progressLines(t, r.stderr)) > 0 {
		t.Errorf("not quiet: %v", r)
	}

	must(t, os.RemoveAll(filepath.Join(a.Releases(), "1")))
	must(t, os.RemoveAll(filepath.Join(a.Releases(), "2")))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	line := "stty cols 220 rows 50; exec " + a.bin + " " + strings.Join(fetch("3"), " ")
	cmd := a.Command(ctx, "script", "-qec", line, "/dev/null")
	cmd.Env = a.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("on a terminal: %v\n%s", err, out)
	}
	for _, want := range []string{"app/1 announced", "[", "peers", "100% from the origin", "first byte", "left", "MiB/s"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the bar does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), `"progress"`) {
		t.Errorf("JSON besides the bar:\n%s", out)
	}
}
