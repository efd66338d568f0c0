package integration

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// TestPackage builds the packages, installs the .deb on this machine's system
// under an overlay, runs an origin and a mount as the units would, and purges.
// TestPackagesUnderSystemd has what only a real systemd shows.
func TestPackage(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE, lab.Namespaces, lab.Tool("make"), lab.Tool("dpkg"), lab.Tool("setpriv"))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	root, err := filepath.Abs(moduleRoot)
	must(t, err)
	run := func(name string, args ...string) string {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = root
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	packages(t)
	for kind, magic := range map[string]string{"deb": "!<arch>\n", "rpm": "\xed\xab\xee\xdb"} {
		files, _ := filepath.Glob(filepath.Join(root, "bin", "*."+kind))
		if len(files) != 1 {
			t.Fatalf("make packages left %v", files)
		}
		if head, err := os.ReadFile(files[0]); err != nil || !strings.HasPrefix(string(head), magic) {
			t.Errorf("%s is no %s: %v", files[0], kind, err)
		}
		if kind == "deb" {
			out := run("unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--propagation", "private",
				"bash", filepath.Join(root, "integration/testdata/package.sh"), files[0], t.TempDir())
			t.Log(out)
			if !strings.Contains(out, "== done") {
				t.Error("it did not come to its end")
			}
		}
	}
}

// TestPackagesUnderSystemd: an in-place copy by the packaged unit, an upgrade of the
// .deb while a mount is used, and the life of the .rpm, with a real systemd.
func TestPackagesUnderSystemd(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE, lab.Namespaces, lab.Tool("make"), lab.Tool("dpkg-deb"), lab.Tool("jq"), lab.Tool("rpm"), lab.Tool("cpio"))
	if _, err := os.Stat("/usr/lib/systemd/systemd"); err != nil {
		t.Skip("systemd is not installed: nothing is known of upgrades")
	}
	dir := machineDir(t)
	for _, file := range packages(t) {
		copyFile(t, file, filepath.Join(dir, filepath.Base(file)))
	}
	onMachine(t, dir, "systemd", "/machine/module/integration/testdata/upgrade.sh")
}

// packages are the built packages: one .deb and one .rpm.
func packages(t *testing.T) []string {
	t.Helper()
	files, err := makePackages()
	must(t, err)
	return files
}

var makePackages = sync.OnceValues(func() ([]string, error) {
	cmd := exec.Command("make", "packages")
	cmd.Dir = moduleRoot
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make packages: %w\n%s", err, out)
	}
	return filepath.Glob(filepath.Join(moduleRoot, "bin/dcfs?*.[dr][ep][bm]"))
})

// TestSampleConfig: every line of the sample, taken into force, is understood.
func TestSampleConfig(t *testing.T) {
	lab.Require(t, lab.Root)
	n := newNode(t, lab.New(t, "one").Host("one"))
	text, err := os.ReadFile(filepath.Join(moduleRoot, "cmd/dcfs/packaging/dcfs.yaml"))
	must(t, err)
	var b strings.Builder
	settings := 0
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(rest, " ") {
			line, settings = rest, settings+1
		}
		b.WriteString(line)
	}
	if settings < 10 {
		t.Fatalf("the sample has %d settings", settings)
	}
	file := filepath.Join(n.Dir, "dcfs.yaml")
	must(t, os.WriteFile(file, []byte(b.String()), 0o644))
	n.ok("status", "--config", file)
}

// notified listens as systemd does, and keeps what it is told.
type notified struct {
	mu   sync.Mutex
	said []string
	path string
}

func listenNotify(t *testing.T, dir string) *notified {
	t.Helper()
	n := &notified{path: filepath.Join(dir, "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"})
	must(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		for buf := make([]byte, 4096); ; {
			k, err := conn.Read(buf)
			if err != nil {
				return
			}
			n.mu.Lock()
			n.said = append(n.said, string(buf[:k]))
			n.mu.Unlock()
		}
	}()
	return n
}

func (n *notified) has(what string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.said {
		if strings.Contains(s, what) {
			return true
		}
	}
	return false
}

// wait waits until the manager was told of what.
func (n *notified) wait(t *testing.T, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := lab.Poll(ctx, func() (bool, error) { return n.has(what), nil }); err != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		t.Fatalf("the service manager was not told %q: %q", what, n.said)
	}
}

// TestServiceManager: an origin, and a mount, tell systemd when they are ready
// and not before, that they live, and that they end; also when the mount is
// served by a child.
func TestServiceManager(t *testing.T) {
	l := newLifeLab(t, 1, 1<<20)
	_, dest := l.paths(t)
	for _, more := range [][]string{nil, {"--survive=false"}} {
		manager := listenNotify(t, t.TempDir())
		mountpoint := filepath.Join(t.TempDir(), "m")
		must(t, os.MkdirAll(mountpoint, 0o755))
		l.o.proc.Kill() // the mount cannot be ready before the origin is
		args := append([]string{"mount", l.release.Version, mountpoint, "--origin", l.o.url(), "--dest", dest,
			"--linger", "10m", "--at-end", "unmount"}, more...)
		p := l.n.Start("mount", func(c *exec.Cmd) {
			// systemd names the process that it starts; a shell that is replaced can.
			c.Env = append(l.n.env(), "NOTIFY_SOCKET="+manager.path, "WATCHDOG_USEC=1500000")
		}, "sh", append([]string{"-c", `WATCHDOG_PID=$$ exec "$0" "$@"`, l.n.bin}, args...)...)
		manager.wait(t, "STATUS="+l.release.Version+" announced")
		if manager.has("READY=1") {
			t.Error("a mount without metadata calls itself ready")
		}
		other := listenNotify(t, t.TempDir())
		t.Setenv("NOTIFY_SOCKET", other.path)
		l.o.start()
		must(t, os.Unsetenv("NOTIFY_SOCKET"))
		other.wait(t, "READY=1")
		other.wait(t, "STATUS=serving")
		manager.wait(t, "READY=1")
		manager.wait(t, "WATCHDOG=1")
		manager.wait(t, "STATUS="+l.release.Version+" lingering")
		l.stop(t, p)
		manager.wait(t, "STOPPING=1")
		l.n.ok("gc", l.n.Releases(), "--keep", "0")
	}
}
