package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// managed is a mount as a unit of a real systemd, which is process 1 of
// namespaces of its own.
type managed struct {
	*survivor
	init int    // systemd, as we see it
	bin  string // the program of the unit
	unit string
}

// inside makes a command that runs in systemd's namespaces.
func (m *managed) inside(ctx context.Context, args ...string) *exec.Cmd {
	return m.n.Command(ctx, "nsenter", append([]string{"-t", strconv.Itoa(m.init), "-m", "-p", "--"}, args...)...)
}

func (m *managed) systemctl(args ...string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	out, err := m.inside(ctx, append([]string{"systemctl", "--no-pager"}, args...)...).CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(m.n.Dir, "unit.log"))
		m.t.Fatalf("systemctl %v: %v\n%s\n%s\n%s", args, err, out, m.p.Tail(20), log)
	}
	return strings.TrimSpace(string(out))
}

func (m *managed) property(name string) string {
	m.t.Helper()
	return m.systemctl("show", "--value", "-p", name, m.unit)
}

// main is the unit's main process, as we see it; 0 while there is none.
func (m *managed) main() int {
	m.t.Helper()
	want := m.property("MainPID")
	statuses, err := filepath.Glob("/proc/[0-9]*/status")
	must(m.t, err)
	ours, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", m.init))
	must(m.t, err)
	for _, s := range statuses {
		b, _ := os.ReadFile(s) // it may have ended
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if f[0] != "NSpid:" || f[len(f)-1] != want || want == "0" {
				continue
			}
			if ns, _ := os.Readlink(filepath.Join(filepath.Dir(s), "ns/pid")); ns == ours {
				pid, err := strconv.Atoi(f[1])
				must(m.t, err)
				return pid
			}
		}
	}
	return 0
}

// startManaged starts systemd on the host and the packaged unit in it, with the
// test's own program and directories.
func startManaged(t *testing.T, n *node, conf map[string]string, mountpoint string) *managed {
	t.Helper()
	m := &managed{bin: filepath.Join(n.Dir, "dcfs"), unit: "dcfs-mount@v.service"}
	m.survivor = &survivor{t: t, n: n, mnt: mountpoint, slow: map[string]time.Duration{}}
	copyFile(t, n.bin, m.bin)
	packaged, err := os.ReadFile(filepath.Join(moduleRoot, "cmd/dcfs/packaging/dcfs-mount@.service"))
	must(t, err)
	text := strings.NewReplacer("/usr/bin/dcfs", m.bin, "/etc/dcfs/mounts", n.Dir, "network-online.target", "", "Wants=", "", "After=", "",
		"[Service]", "[Service]\nStandardError=append:"+filepath.Join(n.Dir, "unit.log")).Replace(string(packaged))
	file := filepath.Join(n.Dir, "unit")
	must(t, os.WriteFile(file, []byte(strings.ReplaceAll(text, "[Unit]", "[Unit]\nDefaultDependencies=no")), 0o644))
	var lines bytes.Buffer
	for name, value := range conf {
		fmt.Fprintf(&lines, "%s=%s\n", name, value)
	}
	must(t, os.WriteFile(filepath.Join(n.Dir, "v.conf"), lines.Bytes(), 0o644))
	script, err := filepath.Abs("testdata/systemd.sh")
	must(t, err)
	m.p = n.Start("systemd", nil, "bash", script, n.Dir, file, "dcfs-mount@.service")
	m.await("systemd", func() bool { m.init = m.findInit(); return m.init != 0 && m.answers() })
	m.systemctl("start", m.unit)
	return m
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to+".new", b, 0o755))
	must(t, os.Rename(to+".new", to))
}

// findInit looks for the process 1 below the script: its only grandchild.
func (m *managed) findInit() int {
	for _, unshare := range children(m.p.PID()) {
		for _, pid := range children(unshare) {
			if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(comm) == "systemd\n" {
				return pid
			}
		}
	}
	return 0
}

func (m *managed) answers() bool {
	ctx, cancel := context.WithTimeout(m.t.Context(), 5*time.Second)
	defer cancel()
	return m.inside(ctx, "systemctl", "show", "-p", "Version").Run() == nil
}

func (m *managed) await(what string, done func() bool) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
	defer cancel()
	if err := lab.Poll(ctx, func() (bool, error) { return done(), nil }); err != nil {
		log, _ := os.ReadFile(filepath.Join(m.n.Dir, "unit.log"))
		m.t.Fatalf("%s: %v\n%s\n%s", what, err, m.p.Tail(30), log)
	}
}

// takenOver waits for another main process than before with a child that serves.
func (m *managed) takenOver(before int) (main int) {
	m.t.Helper()
	m.await("nobody took over", func() bool {
		main = m.main()
		kids := children(main)
		return main != 0 && main != before && len(kids) == 1 && serving(kids[0])
	})
	return main
}

// TestUnderSystemd: the packaged unit under a real systemd. The main process,
// all processes and the serving one are killed, and the program is replaced and
// the unit reloaded, while programs read, map and run what is mounted: they see
// nothing but pauses. Stopped, the unit leaves no mount, and nothing is stored.
func TestUnderSystemd(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE, lab.Namespaces, lab.Tool("systemctl"), lab.Tool("nsenter"))
	if _, err := os.Stat("/usr/lib/systemd/systemd"); err != nil {
		t.Skip("systemd is not installed: nothing is known of the unit")
	}
	l := lab.New(t, "origin", "a")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 100, 4, 1<<20)
	tool(t, source, "cp", "/bin/echo", "bin/run")
	release := o.publish(source, "v")
	n := o.newNode(l.Host("a"))
	mountpoint := filepath.Join(n.Mnt(), "v")
	must(t, os.Mkdir(mountpoint, 0o755))
	n.Shape(lab.Shape{Down: "12mbit"})
	m := startManaged(t, n, map[string]string{
		"RELEASE": release.Version, "MOUNTPOINT": mountpoint, "DCFS_ORIGIN": o.url(), "DCFS_DEST": filepath.Join(n.Releases(), "v"),
		"DCFS_STATE": n.State(), "DCFS_RUN": n.Run(), "DCFS_TRUSTED": n.trusted(), "DCFS_LINGER": "10m",
	}, mountpoint)

	stop := make(chan struct{})
	var readers sync.WaitGroup
	for _, command := range useCommands {
		want := tool(t, source, "sh", "-c", command)
		readers.Go(func() { m.reader(stop, want, "cd "+mountpoint+" && "+command, m.inside) })
	}
	m.takenOver(0)
	for range 4 {
		before := m.main()
		must(t, syscall.Kill(before, syscall.SIGKILL))
		m.takenOver(before)
	}
	before := m.main()
	m.systemctl("kill", "-s", "KILL", m.unit) // all of its processes
	main := m.takenOver(before)
	if got := m.property("NRestarts"); got != "5" {
		t.Errorf("%s restarts, want 5", got)
	}
	child := children(main)[0]
	must(t, syscall.Kill(child, syscall.SIGKILL))
	m.await("no other child", func() bool { k := children(main); return len(k) == 1 && k[0] != child && serving(k[0]) })
	m.renew(main)
	n.Shape(lab.Shape{})
	n.reach(nil, release.Version, "lingering", time.Minute)
	close(stop)
	readers.Wait()
	for _, b := range m.bad {
		t.Error(b)
	}
	if got := m.property("NFileDescriptorStore"); got != "4" {
		t.Errorf("%s descriptors are stored, want 4", got)
	}
	m.systemctl("stop", m.unit)
	if got := m.systemctl("show", "-p", "Result,ActiveState,NFileDescriptorStore", m.unit); got != "NFileDescriptorStore=0\nResult=success\nActiveState=inactive" {
		t.Errorf("after the stop: %q", got)
	}
	equal(t, source, filepath.Join(n.Releases(), "v"))
}

// renew replaces the program and reloads the unit.
func (m *managed) renew(main int) {
	m.t.Helper()
	old := children(main)[0]
	copyFile(m.t, m.n.bin, m.bin)
	m.systemctl("reload", m.unit)
	m.await("the program is not renewed", func() bool {
		k := children(main)
		return len(k) == 1 && k[0] != old && serving(k[0])
	})
	for _, pid := range []int{main, children(main)[0]} {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); exe != m.bin {
			m.t.Errorf("process %d runs %s, %v; want %s", pid, exe, err, m.bin)
		}
	}
}
