package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/integration/lab"
)

// hit are the hosts that a fault is for. Each has a small disk of its own.
const hitFirst, hitLast = 3, 4

// fault is one that strikes some hosts at one step of a deployment.
type fault struct {
	step string // as the script in the place of ssh calls it
	name string
	// do is what is done on each of the hosts when the step comes to it; other,
	// if not empty, on the last of them.
	do, other string
	// deployed: the fault is none at this step, and all goes well.
	deployed bool
	// left: the hosts may be on the new release while all others went back, if
	// the report says that it does not know.
	left bool
	// dies: the coordinator is killed.
	dies bool
}

// deployFaults is each step with each fault. Before the swap a host that fails
// keeps the quorum from being reached; afterwards all go back.
var deployFaults = []fault{
	// The copy is started: nothing of it is there yet.
	{step: "fetch", name: "start, kill", do: "start; sleep 0.05; kill_all; finish", other: "start; sleep 0.01; kill_all; finish"},
	{step: "fetch", name: "start, coordinator", do: "kill_coordinator; run", dies: true},
	{step: "fetch", name: "start, partition", do: "cut; lost"},
	{step: "fetch", name: "start, disk full", do: "fill_disk; run"},
	{step: "fetch", name: "start, wrong key", do: "untrust; run"},
	// It is waited for: pieces come.
	{step: "fetch", name: "wait, kill", do: "start; filling; kill_all; finish"},
	{step: "fetch", name: "wait, coordinator", do: "start; filling; kill_coordinator; finish", dies: true},
	{step: "fetch", name: "wait, partition", do: "start_apart; filling; cut; lost"},
	{step: "fetch", name: "wait, disk full", do: "start; filling; fill_disk; finish"},
	{step: "fetch", name: "wait, wrong key", do: "start; filling; untrust; finish", deployed: true}, // it was believed already
	{step: "swap", name: "swap, kill", do: "start; kill -9 $pid; kill_all; finish", other: "start; sleep 0.01; kill_all; finish"},
	{step: "swap", name: "swap, coordinator", do: "touch $faults/order.came; kill_coordinator; sleep 1.5; " + late, other: "await order.came; kill_coordinator; run", dies: true},
	{step: "swap", name: "swap, partition", do: "cut; lost", other: "start; wait $pid; cut; lost", left: true},
	{step: "swap", name: "swap, disk full", do: "fill_disk; run", deployed: true}, // it takes no space but that of the way back before
	{step: "swap", name: "swap, wrong key", do: "untrust; run", deployed: true},
	{step: "health", name: "health, kill", do: "start; kill -9 $pid; kill_all; finish"},
	{step: "health", name: "health, coordinator", do: "kill_coordinator; run", dies: true},
	{step: "health", name: "health, partition", do: "cut; lost", left: true},
	{step: "health", name: "health, disk full", do: "fill_disk; run", deployed: true},
	{step: "health", name: "health, wrong key", do: "untrust; run", deployed: true},
	{step: "back", name: "rollback, kill", do: "rm $faults/$host.$step; start; sleep 0.005; kill_all; finish", other: "start; kill -9 $pid; kill_all; finish", left: true},
	{step: "back", name: "rollback, coordinator", do: "kill_coordinator; run", dies: true},
	{step: "back", name: "rollback, partition", do: "cut; lost", left: true},
	{step: "back", name: "rollback, disk full", do: "fill_disk; run"},
	{step: "back", name: "rollback, wrong key", do: "untrust; run"},
}

// late carries out an order when others came after it, and notes how that ended.
const late = `(run) >/dev/null 2>&1; echo $? >"$faults/$host.late"`

// newFaultsLab is a fleet whose hosts that are hit have small disks of their own.
func newFaultsLab(t *testing.T) *fleetLab {
	f := newFleetLab(t, 16)
	for _, n := range f.nodes[hitFirst : hitLast+1] {
		must(t, unix.Mount("tmpfs", n.Dir, "tmpfs", 0, "size=24m"))
		t.Cleanup(func() { must(t, n.Unmount(n.Dir)) })
		for _, dir := range []string{n.State(), n.Run(), n.Releases(), n.Mnt()} {
			must(t, os.MkdirAll(dir, 0o755))
		}
		n.trust(f.key + ".pub")
	}
	t.Cleanup(f.endAll)
	t.Cleanup(f.quiet)
	return f
}

// endAll ends what a failed test has left on the hosts.
func (f *fleetLab) endAll() {
	for _, n := range f.nodes {
		for pid, line := range n.Processes() {
			f.t.Logf("%s: ending process %s (%s)", n.Name, pid, line)
			var id int
			if fmt.Sscan(pid, &id); id > 1 {
				_ = syscall.Kill(id, syscall.SIGKILL) // it may have ended meanwhile
			}
		}
		for _, m := range n.MountsBelow(n.Mnt()) {
			_ = n.Unmount(m)
		}
	}
}

// TestDeployFaults: sixteen hosts, and at each step of a deployment each fault on
// two of them. Afterwards every host is on one whole release, and the report says
// on which or that it does not know; mended, the same command comes to the same
// end: all are on the new one.
func TestDeployFaults(t *testing.T) {
	f := newFaultsLab(t)
	boss, cutOff := f.publishCutOff()
	f.deploy(0, "v1", "v1")
	f.deploy(0, "v2", "v2")
	f.quiet()
	was, now := "v2", "v1"
	for _, c := range deployFaults {
		if c.deployed && os.Getenv("DCFS_SOAK_FAULTS") == "" {
			continue // `make soak` has those that are no fault at their step, too
		}
		t.Run(c.name, func(t *testing.T) { // some may be left out by -run
			f.with(t).strike(c, was, now)
			was, now = now, was
		})
		f.mend()
	}
	t.Run("publish", func(t *testing.T) { f.with(t).publishFaults(was, boss, cutOff) })
}

// publishCutOff lets a coordinator on a host of its own publish, and cuts that off
// from the origin in the middle. It ends much later: see publishFaults.
func (f *fleetLab) publishCutOff() (boss *node, deploys *lab.Process) {
	f.t.Helper()
	boss = f.newNode(f.lab.Add("boss"))
	boss.Shape(lab.Shape{Up: "4mbit"}) // so that it takes some seconds
	deploys = boss.daemon("deploy", f.args("v3")...)
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	must(f.t, lab.Poll(ctx, func() (bool, error) {
		_, err := os.Stat(filepath.Join(f.State(), "origin", "v3", ".data.dcfs")) // it is not there before
		return err == nil, nil
	}))
	boss.Cut()
	return boss, deploys
}

// strike deploys version now, where all hosts are on was, and lets the fault
// strike; then it deploys again.
func (f *fleetLab) strike(c fault, was, now string) {
	t := f.t
	hit := f.nodes[hitFirst : hitLast+1]
	for i, n := range hit {
		if c.step == "fetch" { // it has to be fetched there
			must(t, os.RemoveAll(filepath.Join(n.Releases(), now)))
		}
		if c.step == "fetch" && strings.Contains(c.do, "kill_all") || strings.Contains(c.do, "filling") { // not done before the fault strikes
			n.Shape(lab.Shape{Down: "20mbit"})
		}
		do := c.do
		if c.other != "" && i == len(hit)-1 {
			do = c.other
		}
		must(t, os.WriteFile(filepath.Join(f.faults, n.Name+"."+c.step), []byte(do), 0o644))
	}
	health := `test "$(cat /HOST/current/VERSION)" = "$DCFS_RELEASE"`
	if c.step == "back" {
		health = "false"
	}
	flags := []string{"--health", health, "--health-timeout", "300ms", "--straggler", "2s"}
	r := f.dcfs(f.args(now, flags...)...)
	if c.dies { // orders that are under way come to their end
		f.quiet()
	}
	on := f.whole(was, now)
	switch {
	case c.dies:
		if r.code != -1 {
			t.Errorf("the coordinator was not killed: %s", brief(r))
		}
	default:
		f.told(c, r, on, was, now)
	}
	f.mend()
	d := f.run(0, now, "--health", `test "$(cat /HOST/current/VERSION)" = "$DCFS_RELEASE"`, "--health-timeout", "2s")
	if d.Outcome != "deployed" || d.Counts["done"] != len(f.nodes) {
		t.Errorf("again: %+v", d)
	}
	f.quiet()
	if strings.Contains(c.do, late) {
		f.cameLate(hit[0])
	}
	f.on(now)
	for _, n := range hit {
		equal(t, f.trees[now], filepath.Join(n.Dir, "current")+"/.")
	}
}

// whole checks that each host's link leads to one whole release, and returns to
// which.
func (f *fleetLab) whole(was, now string) map[string]string {
	f.t.Helper()
	on := map[string]string{}
	for _, n := range f.nodes {
		target, err := os.Readlink(filepath.Join(n.Dir, "current"))
		version := filepath.Base(target)
		if err != nil || version != was && version != now {
			f.t.Errorf("%s leads to %q, %v", n.Name, target, err)
			continue
		}
		on[n.Name] = version
		got, err := os.ReadFile(filepath.Join(target, "VERSION"))
		if err != nil || strings.TrimSpace(string(got)) != version {
			f.t.Errorf("%s is on %s, which says %q, %v", n.Name, version, got, err)
		}
	}
	for _, n := range f.nodes[hitFirst : hitLast+1] {
		if on[n.Name] != "" {
			equal(f.t, f.trees[on[n.Name]], filepath.Join(n.Dir, "current")+"/.")
		}
	}
	return on
}

// told holds the report of a coordinator that lives against how it is.
func (f *fleetLab) told(c fault, r result, on map[string]string, was, now string) {
	t := f.t
	var d deployed
	if err := json.Unmarshal([]byte(r.stdout), &d); err != nil || len(d.Hosts) != len(f.nodes) {
		t.Fatalf("no report: %v: %s", err, brief(r))
	}
	outcome, code, want := "failed", 75, was
	if c.deployed {
		outcome, code, want = "deployed", 0, now
	}
	if d.Outcome != outcome || r.code != code {
		t.Errorf("%s with exit %d, want %s with %d: %s", d.Outcome, r.code, outcome, code, brief(r))
	}
	for i, h := range d.Hosts {
		isHit := i >= hitFirst && i <= hitLast
		switch {
		case strings.Contains(c.do, "fill_disk") && isHit && c.step != "fetch" && !c.deployed && h.State != "back":
			t.Errorf("a full disk keeps it from going back: %+v", h)
		case h.State == "unknown":
			// Who can be asked says where it is.
			known := filepath.Base(h.Target) == on[h.Host]
			if cutOff := strings.Contains(c.do, "cut"); !isHit || h.Error == "" || known == cutOff || on[h.Host] != want && !c.left {
				t.Errorf("unknown, on %s: %+v", on[h.Host], h)
			}
		case on[h.Host] != want:
			t.Errorf("%s is on %s, want %s: %+v", h.Host, on[h.Host], want, h)
		case h.Target != "" && filepath.Base(h.Target) != on[h.Host]:
			t.Errorf("it is on %s, and the report says %+v", on[h.Host], h)
		case isHit && c.step == "fetch" && !c.deployed && (h.State != "failed" || h.Error == ""):
			t.Errorf("what failed there is not said: %+v", h)
		}
	}
}

// mend takes all faults away.
func (f *fleetLab) mend() {
	scripts, _ := filepath.Glob(filepath.Join(f.faults, "*.*"))
	for _, s := range scripts {
		if filepath.Ext(s) != ".late" {
			_ = os.Remove(s) // it may have removed itself
		}
	}
	for _, n := range f.nodes[hitFirst : hitLast+1] {
		n.Heal()
		n.Shape(lab.Shape{})
		_ = os.Remove(filepath.Join(n.Dir, "filler"))
		_ = os.Rename(filepath.Join(n.Dir, "untrusted.d"), n.trusted())
	}
}

// cameLate waits for an order that hung while others came after it: it is refused.
func (f *fleetLab) cameLate(n *node) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	var got []byte
	err := lab.Poll(ctx, func() (bool, error) {
		got, _ = os.ReadFile(filepath.Join(f.faults, n.Name+".late")) // it is not there before
		return len(got) > 0, nil
	})
	if err != nil || string(got) != "73\n" {
		f.t.Errorf("an order that came too late ended with %q, want 73; %v", got, err)
	}
}

// publishFaults: what goes wrong before any host was spoken to leaves them alone,
// and the same command comes to the end when it is mended: a wrong key, an origin
// that is killed or cut off, one whose disk is full, a coordinator that is killed.
func (f *fleetLab) publishFaults(was string, boss *node, cutOff *lab.Process) {
	t := f.t
	asked := filepath.Join(f.faults, "asked")
	must(t, os.WriteFile(filepath.Join(f.faults, "h00.ask"), []byte("touch "+asked), 0o644))
	unharmed := func(what string) {
		t.Helper()
		f.on(was)
		if _, err := os.Stat(asked); err == nil {
			t.Errorf("%s: hosts were spoken to", what)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	code, err := cutOff.Wait(ctx)
	if said := cutOff.Tail(1); err != nil || code != 69 || !strings.Contains(said, "no origin available; "+f.url()) {
		t.Errorf("cut off: exit %d, %v, %s", code, err, said)
	}
	if out := f.ok("ls", "--origin", f.url()); strings.Contains(out, "v3") {
		t.Errorf("cut off, and published:\n%s", out)
	}
	left := filepath.Join(f.State(), "origin", "v3")
	must(t, lab.Poll(ctx, func() (bool, error) { // the origin finds out by itself
		found, err := filepath.Glob(left + "/.data.dcfs")
		return len(found) == 0, err
	}))
	unharmed("cut off")
	wrong := filepath.Join(f.Dir, "wrong")
	must(t, os.WriteFile(wrong, []byte("another\n"), 0o600))
	f.fails(77, []string{"token"}, f.args("v3", "--publish-token-file", wrong)...)
	unharmed("a wrong token")
	f.fails(78, []string{"unusable key"}, f.args("v3", "--key", filepath.Join(f.Dir, "none.key"))...)
	unharmed("no key")

	f.proc.Kill()
	f.fails(69, []string{f.url()}, f.args("v3")...)
	unharmed("a dead origin")
	store := filepath.Join(f.State(), "origin")
	small := filepath.Join(f.Dir, "small")
	must(t, os.Rename(store, store+".aside"))
	must(t, os.MkdirAll(small, 0o755))
	must(t, os.MkdirAll(store, 0o755))
	must(t, unix.Mount("tmpfs", store, "tmpfs", 0, "size=600k"))
	f.start()
	r := f.dcfs(f.args("v3")...)
	if r.code != 69 || !strings.Contains(r.stderr, "not enough disk space") {
		t.Errorf("an origin whose disk is full: %v", r)
	}
	unharmed("an origin whose disk is full")
	f.proc.Kill()
	must(t, unix.Unmount(store, unix.MNT_DETACH))
	must(t, os.Remove(store))
	must(t, os.Rename(store+".aside", store))
	f.start()
	for wait := 2 * time.Millisecond; wait < 100*time.Millisecond; wait *= 3 { // at several moments of it
		p := f.daemon("killed", f.args("v3")...)
		time.Sleep(wait)
		p.Kill()
	}
	f.on(was)
	must(t, os.Remove(filepath.Join(f.faults, "h00.ask")))
	f.quiet()
	boss.Heal()
	boss.Shape(lab.Shape{})
	if r := boss.dcfs(f.args("v3")...); r.code != 0 {
		t.Errorf("again: %s", brief(r))
	}
	f.on("v3")
}
