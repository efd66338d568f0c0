package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// close ends the lab. What a test left behind fails the test and is removed.
func (l *Lab) close() {
	l.stopAll()
	for _, h := range l.hosts {
		for _, pid := range pids(h.namespace) {
			l.t.Errorf("%s: process %s (%s) is left", h.Name, pid, commandLine(pid))
		}
		killAll(h.namespace)
	}
	for _, m := range mountsBelow(l.root) {
		l.t.Errorf("mount %s is left", m)
		detach(l.t, m)
	}
	for _, ns := range append(l.namespaces(), l.hub) {
		if err := ip("netns del " + ns); err != nil {
			l.t.Errorf("namespace is left: %v", err)
		}
	}
	if l.t.Failed() {
		shown := map[string]bool{} // programs that were started again share their files
		for _, p := range l.procs {
			if !shown[p.Stderr] {
				l.t.Log(p.Tail(60))
			}
			shown[p.Stderr] = true
		}
	}
}

func (l *Lab) namespaces() []string {
	var names []string
	for _, h := range l.hosts {
		if _, err := os.Stat("/run/netns/" + h.namespace); err == nil {
			names = append(names, h.namespace)
		}
	}
	return names
}

// stopAll ends what the test started and did not stop itself, last started
// first: clients before the servers that they talk to.
func (l *Lab) stopAll() {
	for i := len(l.procs) - 1; i >= 0; i-- {
		p := l.procs[i]
		if !p.Running() {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		if _, err := p.Stop(ctx); err != nil {
			l.t.Errorf("%s does not end on SIGTERM: %v", p.Label, err)
		}
		cancel()
	}
}

// MountsBelow lists the mountpoints at or below dir in this mount namespace,
// deepest and newest first.
func (h *Host) MountsBelow(dir string) []string { return mountsBelow(dir) }

// FSType is the type of the topmost filesystem mounted exactly at path, or
// empty when path is no mountpoint.
func (h *Host) FSType(path string) string {
	kind := ""
	for _, m := range mounts() {
		if m.point == path {
			kind = m.fstype
		}
	}
	return kind
}

func mountsBelow(dir string) []string {
	var found []string
	for _, m := range mounts() {
		if m.point == dir || strings.HasPrefix(m.point, dir+"/") {
			found = append([]string{m.point}, found...)
		}
	}
	return found
}

type mount struct{ point, fstype string }

// mounts reads mountinfo, in the order of mounting.
func mounts() []mount {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var all []mount
	for s := bufio.NewScanner(f); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if len(fields) < 5 {
			continue
		}
		kind, _, _ := strings.Cut(after, " ")
		all = append(all, mount{unescape.Replace(fields[4]), kind})
	}
	return all
}

func detach(t testing.TB, point string) {
	if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		t.Errorf("unmount %s: %v", point, err)
	}
}

// killAll kills the processes of a namespace of ours, by id, and waits until
// they are gone.
func killAll(namespace string) {
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		left := pids(namespace)
		if len(left) == 0 {
			return
		}
		for _, s := range left {
			if pid, err := strconv.Atoi(s); err == nil && pid > 1 && pid != os.Getpid() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func commandLine(pid string) string {
	b, _ := os.ReadFile("/proc/" + pid + "/cmdline")
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
}

// sweep removes what runs that were killed left behind: their namespaces, the
// processes in them, and their mounts. Nothing of a live process is touched.
func sweep(t testing.TB) {
	found, _ := filepath.Glob("/run/netns/" + Prefix + "*")
	for _, path := range found {
		name := filepath.Base(path)
		var pid int
		if _, err := fmt.Sscanf(name, Prefix+"%d-", &pid); err != nil || alive(pid) {
			continue
		}
		t.Logf("removing %s of dead process %d", name, pid)
		killAll(name)
		mark := "/" + workDir(pid) + "/"
		for _, m := range mounts() {
			if strings.Contains(m.point, mark) {
				unix.Unmount(m.point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			}
		}
		// Another test process may sweep the same: only the result counts.
		exec.Command("ip", "netns", "del", name).Run()
	}
}

func alive(pid int) bool {
	return pid > 0 && syscall.Kill(pid, 0) != syscall.ESRCH
}
