package agent_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dcfs/cmd/internal/agent"
	"dcfs/cmd/internal/catalog"
	"dcfs/cmd/internal/control"
	"dcfs/cmd/internal/origin"
	"dcfs/fs/materialise"
	"dcfs/fs/release"
)

// site is an origin with a release on loopback, and a trusted key.
type site struct {
	t   *testing.T
	dir string
	url string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	if err := os.Mkdir(s.path("trusted"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := release.GenerateKey(s.path("trusted", "k")); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- origin.Run(ctx, origin.Config{
			Listen: "127.0.0.1:0", PeerListen: "127.0.0.1:0", State: s.path("origin"),
			Log: slog.New(slog.DiscardHandler), OnReady: func(addr, _ string) { ready <- addr },
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the origin ended with %v", err)
		}
	})
	select {
	case addr := <-ready:
		s.url = "http://" + addr
	case err := <-ended:
		t.Fatalf("the origin did not start: %v", err)
	}
	return s
}

func (s *site) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *site) publish(version, key string, files map[string]string) origin.Result {
	s.t.Helper()
	src := s.t.TempDir()
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, name), []byte(content), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	res, err := origin.Publish(s.t.Context(), origin.PublishConfig{
		Dir: src, Version: version, KeyFile: key, State: s.path("origin"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

// fetch lives a life without a mount and returns the states that it went
// through.
func (s *site) fetch(word, dest string, change func(*agent.Config)) ([]control.State, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	var states []control.State
	c := agent.Config{
		Release: word, Origins: []string{s.url}, Dest: dest, State: s.path("state"), RunDir: s.path("run"),
		TrustedDir: s.path("trusted"), PeerListen: "127.0.0.1:0", Wait: 20 * time.Second, CacheBytes: 32 << 20,
		OnState: func(st control.State, _ control.Status) { states = append(states, st) },
	}
	if change != nil {
		change(&c)
	}
	err := agent.Run(ctx, c)
	return states, err
}

func TestFetch(t *testing.T) {
	s := newSite(t)
	big := string(bytes.Repeat([]byte("0123456789abcdef"), 100_000))
	s.publish("app/1", s.path("trusted", "k.key"), map[string]string{"a": "hello", "d/big": big, "d/empty": ""})
	dest, link := s.path("releases", "1"), s.path("current")
	want := []control.State{control.Announced, control.Complete, control.Materialised, control.Lingering, control.Done}
	for round := range 2 { // the second finds the copy whole
		states, err := s.fetch("app/1", dest, func(c *agent.Config) { c.Activate = link })
		if err != nil || !slices.Equal(states, want) {
			t.Fatalf("round %d: %v, %v", round, states, err)
		}
		got, err := os.ReadFile(filepath.Join(link, "d/big"))
		if err != nil || string(got) != big {
			t.Fatalf("round %d: the copy has %d bytes, %v", round, len(got), err)
		}
	}
	if names, _ := os.ReadDir(s.path("releases")); len(names) != 1 {
		t.Errorf("beside the copy: %v", names)
	}
	if names, _ := os.ReadDir(s.path("run")); len(names) != 0 {
		t.Errorf("sockets left: %v", names)
	}
}

func TestFetchRefuses(t *testing.T) {
	s := newSite(t)
	s.publish("unsigned", "", map[string]string{"a": "x"})
	if err := release.GenerateKey(s.path("stranger")); err != nil {
		t.Fatal(err)
	}
	s.publish("strange", s.path("stranger.key"), map[string]string{"a": "y"})
	s.publish("good", s.path("trusted", "k.key"), map[string]string{"a": "z"})
	foreign := s.path("foreign")
	if err := os.MkdirAll(filepath.Join(foreign, "something"), 0o755); err != nil {
		t.Fatal(err)
	}
	fresh := s.path("fresh")
	for name, c := range map[string]struct {
		word, dest string
		change     func(*agent.Config)
		want       error
	}{
		"unsigned":        {"unsigned", fresh, nil, release.ErrUntrusted},
		"another's key":   {"strange", fresh, nil, release.ErrUntrusted},
		"unknown":         {"nope", fresh, nil, catalog.ErrUnknownRelease},
		"foreign content": {"good", foreign, nil, materialise.ErrForeign},
		"no origin": {"good", fresh, func(c *agent.Config) {
			c.Origins, c.Wait = []string{"http://127.0.0.1:1"}, time.Second
		}, catalog.ErrUnreachable},
		"bad end": {"good", fresh, func(c *agent.Config) { c.AtEnd = "whenever" }, agent.ErrConfig},
	} {
		states, err := s.fetch(c.word, c.dest, c.change)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if len(states) > 0 && states[len(states)-1] != control.Failed {
			t.Errorf("%s: states %v", name, states)
		}
	}
	for _, left := range []string{fresh, s.path(".fresh.dcfs")} {
		if _, err := os.Lstat(left); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left behind: %s (%v)", left, err)
		}
	}
	if _, err := s.fetch("unsigned", fresh, func(c *agent.Config) { c.InsecureUnsigned = true }); err != nil {
		t.Errorf("unsigned and allowed: %v", err)
	}
}

// A copy that was finished once and has changed since is never called whole.
func TestDamagedCopyIsRefused(t *testing.T) {
	s := newSite(t)
	s.publish("v", s.path("trusted", "k.key"), map[string]string{"a": "hello", "b": "world"})
	dest, link := s.path("copy"), s.path("link")
	if _, err := s.fetch("v", dest, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dest, "a"), []byte("HELLO"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.fetch("v", dest, func(c *agent.Config) { c.Activate = link }); !errors.Is(err, materialise.ErrForeign) {
		t.Errorf("a damaged copy: %v", err)
	}
	if _, err := os.Lstat(link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link was swapped to a damaged copy (%v)", err)
	}
}
