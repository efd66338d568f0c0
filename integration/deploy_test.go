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
	"testing"
	"time"

	"dcfs/integration/lab"
)

// fleetLab is an origin, from which is deployed, and many hosts.
type fleetLab struct {
	*origin
	lab    *lab.Lab
	nodes  []*node
	hosts  string // the list of hosts
	ssh    string // what stands in for ssh
	faults string // directory: HOST.STEP is what ssh does instead of the step
	trees  map[string]string
}

// remote is what stands in for ssh. All hosts share one filesystem, so HOST in a
// command line is the directory of the host that it is for. A fault is a script of
// its own that knows these functions.
const remote = `#!/bin/bash
host=$1 line=$2 faults=FAULTS
case $line in
mkdir*) step=fetch ;;
env*) step=health ;;
*' receipt '*) step=ask ;;
*' activate '*) step=swap ;;
*' rollback '*) step=back ;;
*) step=other ;;
esac
case $host in
HOSTS
*) echo no such host >&2; exit 255 ;;
esac
run() {
	cd "$dir" && exec env DCFS_STATE="$dir/state" DCFS_RUN="$dir/run" DCFS_TRUSTED="$dir/trusted.d" $enter bash -c "${line//HOST/${dir#/}}"
}
start() { (run) & pid=$!; }
start_apart() { (run) >/dev/null 2>&1 & pid=$!; } # goes on when the connection is lost
finish() { wait $pid; exit $?; }
filling() { until compgen -G "$dir/releases/.v*.dcfs" >/dev/null || ! kill -0 $pid 2>/dev/null; do sleep 0.01; done; }
kill_all() { ip netns pids "$ns" | xargs -r kill -9 2>/dev/null; }
kill_coordinator() { kill -9 $PPID; }
await() { until [ -e "$faults/$1" ]; do sleep 0.01; done; }
cut() { touch "$faults/$host.cut"; ip -n "$hub" link set "$port" down; }
lost() { sleep 0.1; echo Connection timed out >&2; exit 255; }
fill_disk() { cat /dev/zero >"$dir/filler" 2>/dev/null; }
untrust() { mv "$dir/trusted.d" "$dir/untrusted.d"; }
[ ! -e "$faults/$host.cut" ] || lost
[ ! -e "$faults/$host.$step" ] || . "$faults/$host.$step"
run
`

// newFleetLab makes the hosts.
func newFleetLab(t *testing.T, count int) *fleetLab {
	t.Helper()
	lab.Require(t, lab.Root, lab.FUSE, lab.Tool("rsync"))
	l := lab.New(t, "origin")
	f := &fleetLab{origin: newOrigin(t, l.Host("origin")), lab: l, trees: map[string]string{}}
	f.hosts, f.ssh, f.faults = filepath.Join(f.Dir, "hosts"), filepath.Join(f.Dir, "ssh"), filepath.Join(f.Dir, "faults")
	must(t, os.Mkdir(f.faults, 0o755))
	var names, cases strings.Builder
	for i := range count {
		n := f.newNode(l.Add(fmt.Sprintf("h%02d", i)))
		f.nodes = append(f.nodes, n)
		fmt.Fprintln(&names, n.Name)
		fmt.Fprintf(&cases, "%s) dir=%s enter=%q ns=%s hub=%s port=%s ;;\n", n.Name, n.Dir, strings.Join(n.Enter(), " "), n.Namespace(), l.Hub(), n.Port())
	}
	script := strings.NewReplacer("FAULTS", f.faults, "HOSTS", cases.String()).Replace(remote)
	must(t, os.WriteFile(f.hosts, []byte(names.String()), 0o644))
	must(t, os.WriteFile(f.ssh, []byte(script), 0o755))
	for _, v := range []string{"v1", "v2", "v3"} {
		f.trees[v] = sampleTree(t, 20, 2, 256<<10)
		must(t, os.WriteFile(filepath.Join(f.trees[v], "VERSION"), []byte(v+"\n"), 0o644))
		own := make([]byte, 1<<20)
		rand.NewChaCha8([32]byte{v[1]}).Read(own)
		must(t, os.WriteFile(filepath.Join(f.trees[v], "own"), own, 0o644))
	}
	return f
}

func (f *fleetLab) args(version string, more ...string) []string {
	return append([]string{"deploy", f.trees[version], "--as", version, "--key", f.key + ".key",
		"--origin", f.url(), "--publish-token-file", f.token, "--hosts", f.hosts, "--ssh", f.ssh, "--remote-dcfs", f.bin,
		"--mount", "/HOST/mnt", "--dest", "/HOST/releases", "--current", "/HOST/current", "--json",
		"--host-flag=--linger=0s", "--host-flag=--at-end=unmount", "--host-flag=--disk-patience=300ms", "--timeout", "40s"}, more...)
}

// deployed is what the tests read of `deploy --json`.
type deployed struct {
	Schema  int            `json:"schema"`
	Outcome string         `json:"outcome"`
	Counts  map[string]int `json:"counts"`
	Back    float64        `json:"back_seconds"`
	Hosts   []deployedHost `json:"hosts"`
}

type deployedHost struct {
	Host   string `json:"host"`
	State  string `json:"state"`
	Target string `json:"target"`
	Error  string `json:"error"`
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
		f.t.Fatalf("want exit %d: %v, %s", code, err, brief(r))
	}
	return d
}

// brief is how a deployment ended, without what every host did.
func brief(r result) string {
	var d deployed
	_ = json.Unmarshal([]byte(r.stdout), &d)
	text := fmt.Sprintf("exit %d, %s %v", r.code, d.Outcome, d.Counts)
	for _, h := range d.Hosts {
		if h.Error != "" {
			text += fmt.Sprintf("\n%s %s, on %s: %s", h.Host, h.State, filepath.Base(h.Target), h.Error)
		}
	}
	for line := range strings.Lines(r.stderr) {
		if strings.HasPrefix(line, "dcfs: ") {
			text += "\n" + line
		}
	}
	return text
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

// TestDeploy deploys to sixteen hosts, again and again; TestDeployFaults has the
// faults at each step.
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
	t.Run("dry run", func(t *testing.T) { f.with(t).dryRun() })
	t.Run("not healthy", func(t *testing.T) {
		f := f.with(t)
		before := f.nodes[5].Traffic()
		d := f.deploy(75, "v1", "v2", "--health", "test $(basename $PWD) != h05", "--health-timeout", "1s")
		if d.Counts["back"] != 16 {
			t.Errorf("%+v", d)
		}
		f.quiet()
		// What has come stays: trying again, and going back again, costs no payload.
		mid := f.traffic()
		d2 := f.deploy(75, "v1", "v2", "--health", "false", "--health-timeout", "200ms")
		for name, again := range f.traffic() {
			if got := again.Received - mid[name].Received; name != "origin" && got > 20_000 {
				t.Errorf("%s received %d bytes while it swapped and went back", name, got)
			}
		}
		if got := mid["h05"].Received - before.Received; got < 1<<20 {
			t.Errorf("it received %d bytes the first time", got)
		}
		// Under load one of the two may be slow.
		if back := min(d.Back, d2.Back); back <= 0 || back >= 1 {
			t.Errorf("going back took %.2f s and %.2f s", d.Back, d2.Back)
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

func (f *fleetLab) traffic() map[string]lab.Traffic {
	f.t.Helper()
	all, err := f.lab.Traffic()
	must(f.t, err)
	return all
}

// dryRun: what would be run on the hosts is said, and nothing is done, neither
// there nor at the origin.
func (f *fleetLab) dryRun() {
	t := f.t
	must(t, os.WriteFile(filepath.Join(f.faults, "h00.ask"), []byte("touch $faults/asked"), 0o644))
	defer os.Remove(filepath.Join(f.faults, "h00.ask"))
	r := f.dcfs(f.args("v3", "--dry-run", "--health", "check it")...)
	var plan struct {
		Schema   int      `json:"schema"`
		DryRun   bool     `json:"dry_run"`
		Hosts    []string `json:"hosts"`
		Quorum   int      `json:"quorum"`
		Commands []string `json:"commands"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &plan); err != nil || r.code != 0 || plan.Schema != 1 || !plan.DryRun ||
		len(plan.Hosts) != 16 || plan.Quorum != 16 || len(plan.Commands) != 5 {
		t.Errorf("%v: %v", err, r)
	}
	for i, want := range []string{" receipt ", " mount v3 ", " activate ", "'check it'", " rollback "} {
		if i < len(plan.Commands) && !strings.Contains(plan.Commands[i], want) {
			t.Errorf("command %d is %q, want %q in it", i, plan.Commands[i], want)
		}
	}
	if _, err := os.Stat(filepath.Join(f.faults, "asked")); err == nil {
		t.Error("a dry run spoke to a host")
	}
	if out := f.ok("ls", "--origin", f.url()); strings.Contains(out, "v3") {
		t.Errorf("a dry run published:\n%s", out)
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
