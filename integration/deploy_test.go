package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/integration/lab"
)

// fleetLab is an origin, from which is deployed, and many hosts.
type fleetLab struct {
	*origin
	nodes []*node
	hosts string // the list of hosts
	ssh   string // what stands in for ssh
	trees map[string]string
}

// newFleetLab makes the hosts. All share one filesystem, so HOST in a path is
// replaced by the directory of the host that a command is for.
func newFleetLab(t *testing.T, count int) *fleetLab {
	t.Helper()
	lab.Require(t, lab.Root, lab.FUSE, lab.Tool("rsync"))
	l := lab.New(t, "origin")
	f := &fleetLab{origin: newOrigin(t, l.Host("origin")), trees: map[string]string{}}
	var names, script strings.Builder
	script.WriteString("#!/bin/bash\ncase $1 in\n")
	for i := range count {
		n := f.newNode(l.Add(fmt.Sprintf("h%02d", i)))
		f.nodes = append(f.nodes, n)
		fmt.Fprintln(&names, n.Name)
		fmt.Fprintf(&script, "%s) cd %s && exec env DCFS_STATE=%s DCFS_RUN=%s DCFS_TRUSTED=%s %s bash -c \"${2//HOST/%s}\";;\n",
			n.Name, n.Dir, n.State(), n.Run(), n.trusted(), strings.Join(n.Enter(), " "), n.Dir[1:])
	}
	script.WriteString("esac\necho no such host >&2; exit 255\n")
	f.hosts, f.ssh = filepath.Join(f.Dir, "hosts"), filepath.Join(f.Dir, "ssh")
	must(t, os.WriteFile(f.hosts, []byte(names.String()), 0o644))
	must(t, os.WriteFile(f.ssh, []byte(script.String()), 0o755))
	for _, v := range []string{"v1", "v2", "v3"} {
		f.trees[v] = sampleTree(t, 20, 2, 1<<20)
		must(t, os.WriteFile(filepath.Join(f.trees[v], "VERSION"), []byte(v+"\n"), 0o644))
		own := make([]byte, 2<<20)
		rand.NewChaCha8([32]byte{v[1]}).Read(own)
		must(t, os.WriteFile(filepath.Join(f.trees[v], "own"), own, 0o644))
	}
	return f
}

func (f *fleetLab) args(version string, more ...string) []string {
	return append([]string{"deploy", f.trees[version], "--as", version, "--key", f.key + ".key",
		"--origin", f.url(), "--publish-token-file", f.token, "--hosts", f.hosts, "--ssh", f.ssh, "--remote-dcfs", f.bin,
		"--mount", "/HOST/mnt", "--dest", "/HOST/releases", "--current", "/HOST/current", "--json",
		"--host-flag=--linger=0s", "--host-flag=--at-end=unmount", "--timeout", "40s"}, more...)
}

// deployed is what the tests read of `deploy --json`.
type deployed struct {
	Schema  int            `json:"schema"`
	Outcome string         `json:"outcome"`
	Counts  map[string]int `json:"counts"`
	Hosts   []struct {
		Host  string `json:"host"`
		State string `json:"state"`
		Error string `json:"error"`
	} `json:"hosts"`
}

// deploy runs the command to the exit code and checks that all are on a
// version afterwards.
func (f *fleetLab) deploy(code int, on, version string, more ...string) deployed {
	f.t.Helper()
	d := f.run(code, version, more...)
	f.on(on)
	return d
}

func (f *fleetLab) run(code int, version string, more ...string) deployed {
	f.t.Helper()
	r := f.dcfs(f.args(version, more...)...)
	var d deployed
	if err := json.Unmarshal([]byte(r.stdout), &d); err != nil || r.code != code || d.Schema != 1 {
		f.t.Fatalf("want exit %d: %v, %v", code, err, r)
	}
	return d
}

// on checks that every host's link leads to a whole copy of the version.
func (f *fleetLab) on(version string) {
	f.t.Helper()
	for _, n := range f.nodes {
		got, err := os.ReadFile(filepath.Join(n.Dir, "current", "VERSION"))
		if version == "" && os.IsNotExist(err) {
			continue
		}
		if err != nil || strings.TrimSpace(string(got)) != version {
			f.t.Errorf("%s is on %q (%v), want %s", n.Name, got, err, version)
		}
	}
}

// quiet waits until no process of a deployment is left.
func (f *fleetLab) quiet() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	for _, n := range f.nodes {
		if err := lab.Poll(ctx, func() (bool, error) { return len(n.Processes()) == 0, nil }); err != nil {
			f.t.Errorf("%s: processes are left: %v", n.Name, n.Processes())
		}
	}
}

// TestDeploy deploys to sixteen hosts, again and again, with a fault at each
// step: afterwards all are on the one release or all on the other.
func TestDeploy(t *testing.T) {
	f := newFleetLab(t, 16)
	t.Cleanup(f.quiet)
	d := f.deploy(0, "v1", "v1", "--health", `test "$(cat /HOST/current/VERSION)" = "$DCFS_RELEASE"`)
	if d.Outcome != "deployed" || d.Counts["done"] != 16 {
		t.Errorf("%+v", d)
	}
	for _, n := range f.nodes[:3] {
		equal(t, f.trees["v1"], filepath.Join(n.Dir, "current")+"/.")
	}
	t.Run("wrong key", f.faulty(func(t *testing.T, n *node) func() {
		aside := n.trusted() + ".aside"
		must(t, os.Rename(n.trusted(), aside))
		return func() { must(t, os.Rename(aside, n.trusted())) }
	}))
	t.Run("disk full", f.faulty(func(t *testing.T, n *node) func() {
		must(t, unix.Mount("tmpfs", n.Releases(), "tmpfs", 0, "size=1m"))
		return func() { must(t, unix.Unmount(n.Releases(), unix.MNT_DETACH)) }
	}))
	t.Run("partition", f.faulty(func(t *testing.T, n *node) func() {
		n.Cut()
		return n.Heal
	}, "--timeout", "4s"))
	t.Run("killed", f.faulty(func(t *testing.T, n *node) func() {
		n.Shape(lab.Shape{Down: "1mbit"})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = lab.Poll(t.Context(), func() (bool, error) {
				for pid, line := range n.Processes() {
					if strings.Contains(line, "mount") && strings.Contains(line, "v2") {
						var p int
						fmt.Sscan(pid, &p)
						_ = syscall.Kill(p, syscall.SIGKILL)
						return strings.Contains(line, "detach-after"), nil
					}
				}
				return false, nil
			})
		}()
		return func() { n.Shape(lab.Shape{}); <-done }
	}))
	t.Run("not healthy", func(t *testing.T) {
		f := f.with(t)
		before := f.nodes[5].Traffic()
		d := f.deploy(75, "v1", "v2", "--health", "test $(basename $PWD) != h05", "--health-timeout", "1s")
		if d.Counts["back"] != 16 {
			t.Errorf("%+v", d)
		}
		f.quiet()
		// What has come stays: trying again costs no payload.
		mid := f.nodes[5].Traffic()
		f.deploy(75, "v1", "v2", "--health", "false", "--health-timeout", "1s")
		if again := f.nodes[5].Traffic(); again.Received-mid.Received > 200_000 || mid.Received-before.Received < 2<<20 {
			t.Errorf("received %d bytes, and again %d", mid.Received-before.Received, again.Received-mid.Received)
		}
	})
	t.Run("unhealthy within the limit", func(t *testing.T) {
		f := f.with(t)
		d := f.deploy(0, "v2", "v2", "--health", "test $(basename $PWD) != h05", "--health-timeout", "1s", "--max-unhealthy", "1")
		if d.Counts["unhealthy"] != 1 || d.Counts["done"] != 15 {
			t.Errorf("%+v", d)
		}
	})
	t.Run("coordinator killed", func(t *testing.T) { f.with(t).coordinatorKilled() })
}

func (f *fleetLab) with(t *testing.T) *fleetLab {
	c, o, n := *f, *f.origin, *f.node
	n.t, o.node, c.origin = t, &n, &o
	return &c
}

// faulty lets a deployment meet a fault on two hosts: with a quorum of all it
// fails and nothing is swapped.
func (f *fleetLab) faulty(inject func(*testing.T, *node) (mend func()), more ...string) func(*testing.T) {
	return func(t *testing.T) {
		f := f.with(t)
		var mend []func()
		for _, n := range f.nodes[3:5] {
			mend = append(mend, inject(t, n))
		}
		d := f.run(75, "v2", more...)
		for _, m := range mend {
			m()
		}
		f.on("v1")
		if d.Outcome != "failed" || d.Counts["failed"] < 2 {
			t.Errorf("%+v", d)
		}
		for _, h := range d.Hosts[3:5] {
			if h.State != "failed" || h.Error == "" {
				t.Errorf("%+v", h)
			}
		}
		f.quiet()
		// Nobody is ready the next time without work: that is what is tested.
		for _, n := range f.nodes {
			must(t, os.RemoveAll(filepath.Join(n.Releases(), "v2")))
			must(t, os.RemoveAll(filepath.Join(n.Releases(), ".v2.dcfs")))
		}
	}
}

// coordinatorKilled kills the command while it swaps: each host is on the one
// or the other, and the same command again ends well. Then it is interrupted,
// which takes everything back.
func (f *fleetLab) coordinatorKilled() {
	t := f.t
	slow := append(f.args("v3"), "--parallel", "1", "--health", "sleep 30")
	p := f.daemon("deploy", slow...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	swapped := func() (n int) {
		for _, h := range f.nodes {
			if to, err := os.Readlink(filepath.Join(h.Dir, "current")); err == nil && filepath.Base(to) == "v3" {
				n++
			}
		}
		return n
	}
	must(t, lab.Poll(ctx, func() (bool, error) { return swapped() > 3, nil }))
	p.Kill()
	for _, h := range f.nodes {
		got, err := os.ReadFile(filepath.Join(h.Dir, "current", "VERSION"))
		if v := strings.TrimSpace(string(got)); err != nil || v != "v2" && v != "v3" {
			t.Errorf("%s is on %q, %v", h.Name, got, err)
		}
	}
	// Taken up again and interrupted while it looks at the health: all go back
	// to what was before the first attempt.
	p = f.Start("again", func(c *exec.Cmd) { c.Env = f.env() }, f.bin, append(f.args("v3"), "--health", "sleep 30")...)
	must(t, lab.Poll(ctx, func() (bool, error) { return swapped() == len(f.nodes), nil }))
	if code, err := p.Stop(ctx); err != nil || code != 143 {
		t.Errorf("after SIGTERM: exit %d, %v\n%s", code, err, p.Tail(20))
	}
	f.on("v2")
	f.deploy(0, "v3", "v3")
}
