package doctor

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func by(found []Finding, name string) (out []Finding) {
	for _, f := range found {
		if f.Name == name {
			out = append(out, f)
		}
	}
	return out
}

// TestExamine: every check has a finding, each fault that can be made here is
// found, and nothing is left behind.
func TestExamine(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("no key"), 0o644); err != nil {
		t.Fatal(err)
	}
	skewed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-10*time.Minute).UTC().Format(http.TimeFormat))
	}))
	defer skewed.Close()
	broken := httptest.NewServer(http.NotFoundHandler())
	defer broken.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	trusted := filepath.Join(dir, "trusted")
	if err := os.Mkdir(trusted, 0o755); err != nil {
		t.Fatal(err)
	}

	well := Examine(t.Context(), Config{State: filepath.Join(dir, "a/b"), Run: filepath.Join(dir, "run"), Trusted: trusted, PeerListen: "127.0.0.1:0"})
	for name, level := range map[string]Level{Kernel: OK, Limits: OK, Ports: OK, Run: OK, Keys: Warn, Origin: Warn} {
		if f := by(well, name); len(f) != 1 || f[0].Level != level || f[0].Text == "" {
			t.Errorf("%s: %+v, want one with %s", name, f, level)
		}
	}
	if len(by(well, FUSE)) != 1 || len(by(well, Disk)) != 1 {
		t.Errorf("checks are missing: %+v", well)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("it left something: %v", entries)
	}

	if err := os.WriteFile(filepath.Join(trusted, "bad.pub"), []byte("no key"), 0o644); err != nil {
		t.Fatal(err)
	}
	ill := Examine(t.Context(), Config{State: filepath.Join(file, "state"), Run: filepath.Join(file, "run"), Dest: dir, Trusted: trusted,
		PeerListen: taken.Addr().String(), Origins: []string{skewed.URL, broken.URL, "http://127.0.0.1:1"}})
	for name, words := range map[string][]string{
		Ports: {"in use"}, Run: {"not a directory"}, Keys: {"bad.pub"}, Clock: {"future"},
		Origin: {"", "404", "refused"}, Disk: {"not a directory", ""},
	} {
		got := by(ill, name)
		if len(got) != len(words) {
			t.Errorf("%s: %+v, want %d findings", name, got, len(words))
			continue
		}
		for i, w := range words {
			if w != "" && (got[i].Level != Fail || !strings.Contains(got[i].Text, w) || got[i].Try == "") {
				t.Errorf("%s: %+v, want a failure with %q and what to try", name, got[i], w)
			}
		}
	}
}

func TestJudgements(t *testing.T) {
	for version, level := range map[string]Level{"5.11.0-1": Fail, "4.19.0": Fail, "5.12.0": OK, "6.1.0-13-amd64": OK, "odd": Warn} {
		if f := judgeKernel(version); f.Level != level {
			t.Errorf("Linux %s: %+v, want %s", version, f, level)
		}
	}
	now := time.Now()
	for off, level := range map[time.Duration]Level{0: OK, time.Minute: Warn, -time.Minute: Warn, time.Hour: Fail, -time.Hour: Fail} {
		if f := clock(now.Add(off).UTC().Format(http.TimeFormat), now); f.Level != level {
			t.Errorf("a clock that is off by %s: %+v, want %s", off, f, level)
		}
	}
	if f := clock("", now); f.Level != Warn {
		t.Errorf("no Date: %+v", f)
	}
	for _, tc := range []struct {
		free, all, files uint64
		want             Level
	}{{100 << 30, 200 << 30, 1e6, OK}, {500 << 20, 200 << 30, 1e6, Warn}, {1 << 20, 200 << 30, 1e6, Fail}, {100 << 30, 200 << 30, 10, Fail}} {
		st := unix.Statfs_t{Bsize: 1, Bavail: tc.free, Blocks: tc.all, Files: 1e6, Ffree: tc.files}
		if f := room("/x", &st); f.Level != tc.want {
			t.Errorf("%+v: %+v", tc, f)
		}
	}
}

// A check whose filesystem hangs is given up.
func TestWithin(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if f := within(ctx, Disk, func() []Finding { <-hang; return nil }); len(f) != 1 || f[0].Level != Fail {
		t.Errorf("%+v", f)
	}
}
