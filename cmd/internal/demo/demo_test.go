package demo

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sum is a digest of names, modes and content, and the size of all files.
func sum(t *testing.T, dir string) (digest string, bytes int64) {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		fmt.Fprintln(h, rel, fi.Mode())
		if fi.Mode().IsRegular() {
			bytes += fi.Size()
			raw, err := os.ReadFile(path)
			h.Write(raw)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), bytes
}

func TestSampleIsTheSameEverywhere(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	for _, dir := range []string{a, b} {
		if err := makeSample(context.Background(), dir, 5<<20); err != nil {
			t.Fatal(err)
		}
	}
	da, bytes := sum(t, a)
	db, _ := sum(t, b)
	if da != db {
		t.Error("two samples of one size differ")
	}
	if bytes != 5<<20 {
		t.Errorf("%d bytes, want %d", bytes, 5<<20)
	}
	if fi, err := os.Stat(filepath.Join(a, lastFile)); err != nil || fi.Size() < 128<<10 {
		t.Errorf("the file for the lazy read: %v %v", fi, err)
	}
	if err := sameBytes(a, b, lastFile); err != nil {
		t.Error(err)
	}
	if err := sameBytes(a, b, "none"); err == nil {
		t.Error("a missing file is the same")
	}
}

func TestSmallestSample(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	if err := makeSample(context.Background(), dir, MinSize); err != nil {
		t.Fatal(err)
	}
	if _, bytes := sum(t, dir); bytes != MinSize {
		t.Errorf("%d bytes, want %d", bytes, MinSize)
	}
}

func TestSampleStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := makeSample(ctx, filepath.Join(t.TempDir(), "a"), 1<<30); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	_, err := Run(context.Background(), Config{Exe: "/bin/false", Nodes: 1, Size: MinSize, Dir: parent, Story: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "dcfs key") {
		t.Errorf("error %v, want one that names the command", err)
	}
	if left, _ := os.ReadDir(parent); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRunRefuses(t *testing.T) {
	for _, c := range []Config{
		{Nodes: 0, Size: MinSize}, {Nodes: MaxNodes + 1, Size: MinSize}, {Nodes: 1, Size: MinSize - 1},
	} {
		c.Dir, c.Story = t.TempDir(), io.Discard
		if _, err := Run(context.Background(), c); err == nil {
			t.Errorf("%+v is taken", c)
		}
		if left, _ := os.ReadDir(c.Dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func shell(t *testing.T) *story {
	t.Helper()
	return &story{Config: Config{Exe: "/bin/sh", Story: io.Discard, Keep: true}, dir: t.TempDir()}
}

func TestCleanUpEndsProcesses(t *testing.T) {
	s := shell(t)
	p, err := s.start("sleeper", nil, "-c", "exec sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cleanUp(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(p.pid(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("still there: %v", err)
	}
}

func TestStartReady(t *testing.T) {
	s := shell(t)
	var ready struct{ URL string }
	if _, err := s.startReady(context.Background(), "ok", &ready, "-c", `echo '{"url":"x"}'; exec sleep 60`); err != nil || ready.URL != "x" {
		t.Errorf("%+v, %v", ready, err)
	}
	_, err := s.startReady(context.Background(), "dies", &ready, "-c", "echo the port is in use >&2; exit 78")
	if err == nil || !strings.Contains(err.Error(), "the port is in use") || !strings.Contains(err.Error(), "78") {
		t.Errorf("error %v, want the end of the log and the code", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.startReady(ctx, "mute", &ready, "-c", "exec sleep 60"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
	if err := s.cleanUp(); err != nil {
		t.Error(err)
	}
}

func TestCall(t *testing.T) {
	s := shell(t)
	t.Setenv("DCFS_ORIGIN", "http://elsewhere")
	var got struct{ Origin, Config string }
	if _, err := s.call(context.Background(), &got, "-c", `echo "{\"origin\":\"$DCFS_ORIGIN\",\"config\":\"$DCFS_CONFIG\"}"`); err != nil {
		t.Fatal(err)
	}
	if got.Origin != "" || got.Config != s.path(configFile) {
		t.Errorf("the machine's settings reach the demo: %+v", got)
	}
	_, err := s.call(context.Background(), nil, "-c", "echo why >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("error %v, want what it said", err)
	}
}

func TestFigures(t *testing.T) {
	f := Figures{Bytes: 100, Nodes: []Node{
		{Name: "a", Received: 110, Sent: 60, Verified: true}, {Name: "b", Received: 100},
	}}
	f.sum()
	if f.OriginCopies != 1.5 {
		t.Errorf("origin copies %v, want 1.5", f.OriginCopies)
	}
	var out strings.Builder
	if err := f.Print(&out); err != nil || !strings.Contains(out.String(), "1.50 copies, for 2 nodes") {
		t.Errorf("%v\n%s", err, out.String())
	}
	raw, err := json.Marshal(f)
	if err != nil || !strings.Contains(string(raw), `"schema":1`) || !strings.Contains(string(raw), `"bytes_fetched":110`) {
		t.Errorf("%s, %v", raw, err)
	}
}
