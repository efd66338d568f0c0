package origin

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dcfs/fs/durable"
	"dcfs/fs/prefetch"
)

// traced is a library with the release v of the files a, b and c.
func traced(t *testing.T, trace string) (*Library, *seeded) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/src", 0o755))
	for _, name := range []string{"a", "b", "c"} {
		must(t, os.WriteFile(dir+"/src/"+name, []byte("content of "+name), 0o644))
	}
	c := PublishConfig{Dir: dir + "/src", Version: "v", State: dir + "/state", Log: quiet}
	if trace != "" {
		c.TraceFile = dir + "/trace"
		must(t, os.WriteFile(c.TraceFile, []byte(trace), 0o644))
	}
	_, err := Publish(t.Context(), c)
	must(t, err)
	lib, err := openLibrary(c.State, quiet, durable.Disk{})
	must(t, err)
	mi, err := lib.Metainfo("v")
	must(t, err)
	return lib, &seeded{version: "v", mi: mi}
}

// recorded is a trace of the first bytes of files with names of one letter.
func recorded(release, files string) string {
	out := fmt.Sprintf("{\"schema\":1,\"release\":%q}\n", release)
	for _, f := range files {
		out += fmt.Sprintf("{\"path\":%q,\"off\":0,\"len\":1,\"at_ms\":3}\n", string(f))
	}
	return out
}

func served(t *testing.T, s *traces, rel *seeded) string {
	t.Helper()
	raw, err := s.get(rel)
	must(t, err)
	if len(raw) == 0 {
		return "none"
	}
	trace, err := prefetch.Read(bytes.NewReader(raw))
	must(t, err)
	if trace.Release != "v" {
		t.Errorf("served as of release %q", trace.Release)
	}
	return strings.Join(trace.Hot(), "")
}

func TestTracesOfHosts(t *testing.T) {
	lib, rel := traced(t, "")
	s, now := newTraces(lib), time.Now()
	if got := served(t, s, rel); got != "none" {
		t.Fatalf("at first: %s", got)
	}
	for name, bad := range map[string]string{
		"no trace":        "<html>",
		"another release": recorded("w", "a"),
		"unknown files":   recorded("v", "xyz"),
		"no entries":      recorded("v", ""),
	} {
		if taken, err := s.take(rel, "10.0.0.9", []byte(bad), now); taken || !errors.Is(err, prefetch.ErrTrace) {
			t.Errorf("%s: taken %v, %v", name, taken, err)
		}
	}
	for i, step := range []struct {
		host, files string
		taken       bool
		want        string
	}{
		{"10.0.0.1", "cb", true, "cb"},
		{"10.0.0.1", "ab", false, "cb"}, // a host counts once
		{"10.0.0.2", "cbx", true, "cb"},
		{"10.0.0.3", "acb", true, "cb"}, // what one of three read is not common
		{"10.0.0.4", "ab", true, "acb"},
	} {
		taken, err := s.take(rel, step.host, []byte(recorded("v", step.files)), now)
		must(t, err)
		if got := served(t, s, rel); taken != step.taken || got != step.want {
			t.Errorf("step %d: taken %v, served %s; want %v, %s", i, taken, got, step.taken, step.want)
		}
	}
	if got := served(t, newTraces(lib), rel); got != "acb" {
		t.Errorf("after a restart: %s", got)
	}
	if open, err := s.wants("v", "10.0.0.5", now.Add(traceTime+time.Minute)); err != nil || open {
		t.Errorf("a day later: %v, %v", open, err)
	}
	for i := range 2 * maxTraceHosts {
		_, err := s.take(rel, fmt.Sprintf("10.0.1.%d", i), []byte(recorded("v", "a")), now)
		must(t, err)
	}
	if kept, err := os.ReadDir(filepath.Join(lib.home("v"), tracesDir)); err != nil || len(kept) != maxTraceHosts {
		t.Errorf("%d traces are kept, %v; want %d", len(kept), err, maxTraceHosts)
	}
}

// The publisher's trace may be of an older release, goes with the new one, and
// stands before what hosts read.
func TestTraceOfThePublisher(t *testing.T) {
	lib, rel := traced(t, recorded("older", "xcb"))
	s := newTraces(lib)
	if got := served(t, s, rel); got != "cb" {
		t.Errorf("served %s", got)
	}
	_, err := s.take(rel, "10.0.0.1", []byte(recorded("v", "abc")), time.Now())
	must(t, err)
	if got := served(t, s, rel); got != "cba" {
		t.Errorf("with a host's: %s", got)
	}
	must(t, s.publish(rel, []byte(recorded("older", "b"))))
	if got := served(t, s, rel); got != "bac" {
		t.Errorf("with another of the publisher: %s", got)
	}
	if stream := slices.Collect(rel.mi.Tree.Stream()); rel.mi.Tree.Path(stream[0]) != "c" {
		t.Errorf("the release begins with %s", rel.mi.Tree.Path(stream[0]))
	}
}

func TestTokensDiffer(t *testing.T) {
	dir := t.TempDir()
	for name, token := range map[string]string{"a": "one", "b": "one", "c": "two"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(token+"\n"), 0o600))
	}
	if _, _, err := readTokens(Config{PublishTokenFile: dir + "/a", TraceTokenFile: dir + "/b"}); !errors.Is(err, ErrConfig) {
		t.Errorf("the same token twice: %v", err)
	}
	publish, trace, err := readTokens(Config{PublishTokenFile: dir + "/a", TraceTokenFile: dir + "/c"})
	if err != nil || publish != "one" || trace != "two" {
		t.Errorf("%q, %q, %v", publish, trace, err)
	}
}
