// Package lab gives a test several hosts on one machine: each host is a
// network namespace with its own address, link rate and directories, joined to
// the others by a bridge that stands in a namespace of its own. Programs run in
// a host with the machine's ordinary mounts, so a mount that one command makes
// in a host is seen by the next one and by the test itself.
//
// It must never import anything of the product that it tests, touch addresses,
// links or routes of the machine's own network namespace, signal a process that
// it did not start, or leave a namespace, mount or process behind: it checks
// for each of them when the test ends and fails the test that left one.
package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Prefix starts the name of every namespace that this package makes. The id of
// the process that owns it follows, so that what a killed run left behind can
// be told from what a live one uses.
const Prefix = "dcfs-"

// Lab is a set of hosts on one bridge. Its methods are safe for concurrent use.
type Lab struct {
	t    testing.TB
	hub  string // namespace that holds the bridge
	root string // directory that holds those of the hosts

	mu    sync.Mutex
	racks int
	hosts []*Host
	procs []*Process
}

var (
	sequence  atomic.Int64
	sweepOnce sync.Once
)

// New makes a lab with the named hosts (short names of [a-z0-9]) and takes it
// down when the test ends. It skips the test, or fails it under CI=true, when
// the machine cannot do it; see Require. The first lab of a process also
// removes what earlier processes, dead by now, left behind.
func New(t testing.TB, hosts ...string) *Lab {
	t.Helper()
	Require(t, Root, Tool("ip"), Tool("tc"), Tool("nsenter"), Namespaces)
	sweepOnce.Do(func() { sweep(t) })
	id := fmt.Sprintf("%s%d-%d", Prefix, os.Getpid(), sequence.Add(1))
	l := &Lab{
		t:   t,
		hub: id + "-hub",
		// TempDir before Cleanup: it is removed after our cleanup has run.
		root: filepath.Join(t.TempDir(), workDir(os.Getpid())),
	}
	t.Cleanup(l.close)
	l.batch("netns add " + l.hub)
	l.batch("-n "+l.hub,
		"link add br0 type bridge forward_delay 0",
		"link set br0 up", "link set lo up")
	for _, name := range hosts {
		l.Add(name)
	}
	return l
}

// workDir names the directory of all labs of a process: a mount below it says
// whose it is.
func workDir(pid int) string { return fmt.Sprintf("dcfs-lab-%d", pid) }

// Add joins one more host to the lab. It fails the test when it cannot.
func (l *Lab) Add(name string) *Host {
	l.t.Helper()
	l.mu.Lock()
	n := len(l.hosts) + 1
	h := &Host{
		Name:      name,
		Addr:      fmt.Sprintf("10.77.%d.%d", n>>8, n&0xff),
		Addr6:     fmt.Sprintf("fd00:77::%x", n),
		Dir:       filepath.Join(l.root, name),
		lab:       l,
		namespace: strings.TrimSuffix(l.hub, "hub") + name,
		port:      fmt.Sprintf("p%d", n),
	}
	l.hosts = append(l.hosts, h)
	l.mu.Unlock()

	for _, d := range []string{h.State(), h.Run(), h.Releases(), h.Mnt()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			l.t.Fatal(err)
		}
	}
	l.batch("netns add " + h.namespace)
	l.batch(fmt.Sprintf("link add %s netns %s type veth peer name eth0 netns %s",
		h.port, l.hub, h.namespace))
	l.batch("-n "+l.hub, "link set "+h.port+" master br0", "link set "+h.port+" up")
	l.batch("-n "+h.namespace,
		"link set lo up",
		"addr add "+h.Addr+"/16 brd + dev eth0",
		"addr add "+h.Addr6+"/64 dev eth0 nodad",
		"link set eth0 address "+h.mac(),
		"link set eth0 up")
	return h
}

// Acquaint tells all hosts the others' hardware addresses. The kernel keeps 1024
// that were asked for, in all namespaces together: more than 32 hosts that all
// speak with each other need this, or some of them never meet.
func (l *Lab) Acquaint() {
	l.t.Helper()
	l.mu.Lock()
	hosts := slices.Clone(l.hosts)
	l.mu.Unlock()
	for _, h := range hosts {
		words := []string{"-n " + h.namespace}
		for _, other := range hosts {
			if other != h {
				words = append(words, "neigh replace "+other.Addr+" lladdr "+other.mac()+" dev eth0 nud permanent")
			}
		}
		l.batch(words...)
	}
}

// mac is the hardware address of a host: a local one, made of its IPv4 address.
func (h *Host) mac() string {
	a := net.ParseIP(h.Addr).To4()
	return net.HardwareAddr{0x02, 0, a[0], a[1], a[2], a[3]}.String()
}

// Host returns the host of that name and fails the test when there is none.
func (l *Lab) Host(name string) *Host {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.hosts {
		if h.Name == name {
			return h
		}
	}
	l.t.Fatalf("lab has no host %q", name)
	return nil
}

// batch runs commands of ip(8), all in one process when the first argument
// selects a namespace ("-n NAME"). It fails the test when one fails.
func (l *Lab) batch(commands ...string) {
	l.t.Helper()
	if err := ip(commands...); err != nil {
		l.t.Fatal(err)
	}
}

func ip(commands ...string) error {
	args := strings.Fields(commands[0])
	stdin := ""
	if args[0] == "-n" && len(args) == 2 {
		args = append(args, "-batch", "-")
		stdin = strings.Join(commands[1:], "\n") + "\n"
	}
	cmd := exec.Command("ip", args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(commands, "; "), err, out)
	}
	return nil
}

// Hub is the name of the namespace that holds the bridge.
func (l *Lab) Hub() string { return l.hub }
