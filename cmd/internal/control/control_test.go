package control

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fixed Status

func (f fixed) Status() Status { return Status(f) }

// start serves s and returns the socket; the server ends with the test.
func start(t *testing.T, run string, s Status) string {
	t.Helper()
	path := SocketPath(run, s.PID)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Serve(ctx, fixed(s)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("socket left behind: %v", err)
		}
	})
	return path
}

func TestCollect(t *testing.T) {
	// Longer than a socket address may be: run directories of tests often are.
	run := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	start(t, run, Status{PID: 20, Version: "b", State: Lingering})
	path := start(t, run, Status{PID: 3, Version: "a", State: Mounted})

	if fi, err := os.Lstat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v, want mode 0600", fi, err)
	}
	if fi, err := os.Stat(run); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("run directory: %v %v, want mode 0755", fi, err)
	}
	hung := hang(t, run)
	dead := die(t, run)
	if err := os.WriteFile(filepath.Join(run, "note.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	all, errs := Collect(context.Background(), run, 200*time.Millisecond)
	if len(all) != 2 || all[0].PID != 3 || all[1].PID != 20 || all[0].State != Mounted {
		t.Errorf("got %+v", all)
	}
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), hung) {
		t.Errorf("errors %v, want one that names %s", errs, hung)
	}
	if _, err := os.Lstat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket of a dead process is still there: %v", err)
	}
}

// hang is a process that accepts and says nothing.
func hang(t *testing.T, run string) string {
	path := SocketPath(run, 7)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path
}

// die is what a killed process leaves.
func die(t *testing.T, run string) string {
	path := SocketPath(run, 9)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l.net.Close()
	l.dir.Close()
	return path
}

// TestLook: the sockets of dead processes are told and left; those of live ones
// are not told.
func TestLook(t *testing.T) {
	run := t.TempDir()
	start(t, run, Status{PID: 1, Version: "web-1", State: Mounted})
	dead := die(t, run)
	all, gone, errs := Look(t.Context(), run, time.Second)
	if len(all) != 1 || len(errs) > 0 || len(gone) != 1 || gone[0] != dead {
		t.Errorf("%v, dead %v, errors %v; want one of each and %s", all, gone, errs, dead)
	}
	if _, err := os.Lstat(dead); err != nil {
		t.Errorf("it had an effect: %v", err)
	}
}

func TestListenReplacesStale(t *testing.T) {
	run := t.TempDir()
	die(t, run)
	path := start(t, run, Status{PID: 9, Version: "new"})
	s, err := Ask(context.Background(), path, time.Second)
	if err != nil || s.Version != "new" {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestCollectNothing(t *testing.T) {
	all, errs := Collect(context.Background(), filepath.Join(t.TempDir(), "none"), time.Second)
	if len(all) != 0 || len(errs) != 0 {
		t.Errorf("got %v, %v", all, errs)
	}
}

func TestAskGone(t *testing.T) {
	run := t.TempDir()
	for _, path := range []string{die(t, run), SocketPath(run, 1), filepath.Join(run, "no/1.sock")} {
		if _, err := Ask(context.Background(), path, time.Second); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v, want ErrGone", path, err)
		}
	}
}

func TestAskRefusesOtherSchema(t *testing.T) {
	run := t.TempDir()
	l, err := Listen(SocketPath(run, 5))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := l.net.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"schema\":2}"))
	}()
	_, err = Ask(context.Background(), SocketPath(run, 5), 5*time.Second)
	<-served
	if err == nil || !strings.Contains(err.Error(), "schema 2") {
		t.Errorf("got %v", err)
	}
}

// TestJSON pins the names that scripts read.
func TestJSON(t *testing.T) {
	s := Status{
		PID: 1, Version: "app/1", Waiting: make([]Wait, 100),
		Traffic: Traffic{Bytes: 9, PeerAddrs: make([]Peer, 100)},
	}.normal()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	for _, k := range strings.Fields(`schema pid version infohash state started state_since
		bytes bytes_have bytes_fetched bytes_uploaded pieces pieces_have down_rate up_rate
		peers seeds peer_addrs waiting cache linger_left_ms`) {
		if _, ok := got[k]; !ok {
			t.Errorf("no %q in %s", k, raw)
		}
	}
	if n := len(got["waiting"].([]any)); n != MaxWaiting {
		t.Errorf("%d waits, want %d", n, MaxWaiting)
	}
	if n := len(got["peer_addrs"].([]any)); n != MaxPeerAddrs {
		t.Errorf("%d peers, want %d", n, MaxPeerAddrs)
	}
	if raw, _ := json.Marshal(Status{}.normal()); !strings.Contains(string(raw), `"waiting":[]`) {
		t.Errorf("empty list is not []: %s", raw)
	}
}

func TestReached(t *testing.T) {
	for _, c := range []struct {
		s, want State
		ok      bool
	}{
		{Mounted, Mounted, true},
		{Announced, Mounted, false},
		{Lingering, Materialised, true},
		{Failed, Mounted, false},
		{"", "", false},
		{Done, "nonsense", false},
	} {
		if got := c.s.Reached(c.want); got != c.ok {
			t.Errorf("%q.Reached(%q) = %v", c.s, c.want, got)
		}
	}
}
