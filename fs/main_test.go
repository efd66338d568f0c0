package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"dcfs/fs/tree"
)

// The tests mount in this process and look at the mount from others: from
// here, a stuck request could stop the scheduler that has to answer it. The
// others are this binary again, in one of the roles of helper_test.go.
const roleEnv = "DCFS_FS_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(play(role, os.Args[1:]))
	}
	if os.Getenv(sharedEnv) != "" {
		if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

func needFUSE(t testing.TB) {
	t.Helper()
	if err := available(); err != nil {
		t.Skipf("SKIPPED, nothing of the mount is tested: %v", err)
	}
}

// memory is a Content in RAM. A gate holds back reads of a part of it.
type memory struct {
	data []byte

	mu      sync.Mutex
	gate    chan struct{}
	lo, hi  int64
	waiting chan struct{} // a token per read that reached the gate
}

func (m *memory) close(lo, hi int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lo, m.hi = lo, hi
	m.gate, m.waiting = make(chan struct{}), make(chan struct{}, 4096)
}

func (m *memory) open() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.gate)
	m.gate = nil
}

func (m *memory) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	m.mu.Lock()
	gate, waiting := m.gate, m.waiting
	shut := gate != nil && off < m.hi && off+int64(len(p)) > m.lo
	m.mu.Unlock()
	if shut {
		select {
		case waiting <- struct{}{}:
		default: // nobody counts so many
		}
		select {
		case <-gate:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	n := copy(p, m.data[min(off, int64(len(m.data))):])
	if n < len(p) || off >= int64(len(m.data)) {
		return n, io.EOF
	}
	return n, nil
}

// newMemory fills the stream of tr: every byte says where it is.
func newMemory(tr *tree.Tree) *memory {
	m := &memory{data: make([]byte, tr.Total())}
	for i := range m.data {
		m.data[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16)
	}
	return m
}

func (m *memory) file(tr *tree.Tree, path string) []byte {
	id, _ := tr.Find(path)
	off, n := tr.Span(id)
	return m.data[off : off+n]
}

// logs is a slog sink that tests can read.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// mountAt prepares dir and mounts cfg there until the test ends.
func mountAt(t testing.TB, dir string, cfg Config) *Server {
	t.Helper()
	needFUSE(t)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err) // not MkdirAll: dir may be a dead mount, which cannot be looked at
	}
	place, err := Prepare(t.Context(), dir, cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Place = place
	s, err := Mount(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
		defer stop()
		if err := s.Unmount(ctx); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return s
}

// role returns a command that plays a role on the mount.
func role(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := role(t, name, args...).Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// mountsAt returns the lines of mountinfo whose mountpoint is path.
func mountsAt(t testing.TB, path string) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == path {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// unmountAll detaches whatever is mounted at path.
func unmountAll(t testing.TB, path string) {
	for len(mountsAt(t, path)) > 0 {
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			t.Error(fmt.Errorf("clean up %s: %w", path, err))
			return
		}
	}
}
