package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/integration/lab"
)

// sshd runs a real sshd on a host: keys and settings of its own, and common as
// the host's own directory of that path, seen by nobody else.
func sshd(t *testing.T, n *node, common, authorized string) {
	t.Helper()
	must(t, os.MkdirAll("/run/sshd", 0o755)) // it wants it, and shares it with any other
	key := filepath.Join(n.Dir, "host_key")
	keygen(t, key)
	config := filepath.Join(n.Dir, "sshd_config")
	must(t, os.WriteFile(config, []byte(fmt.Sprintf(`ListenAddress %s
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin yes
SetEnv DCFS_STATE=%s DCFS_RUN=%s DCFS_TRUSTED=%s
`, n.Addr, key, authorized, n.State(), n.Run(), n.trusted())), 0o644))
	own := filepath.Join(n.Dir, "own")
	must(t, os.MkdirAll(own, 0o755))
	n.Start("sshd", nil, "unshare", "--mount", "sh", "-ec", `mount --bind "$0" "$1"; exec /usr/sbin/sshd -D -e -f "$2"`, own, common, config)
	t.Cleanup(func() { endSessions(n) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	must(t, lab.Poll(ctx, func() (bool, error) {
		c, err := n.Dial(ctx, "tcp", net.JoinHostPort(n.Addr, "22"))
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	}))
}

// endSessions ends the connections that an sshd still serves: one that is only
// just accepted, of a client that was given up, outlives the sshd that took it.
func endSessions(n *node) {
	for pid, line := range n.Processes() {
		if id, err := strconv.Atoi(pid); err == nil && strings.HasPrefix(line, "sshd: ") && !strings.Contains(line, "[listener]") {
			_ = unix.Kill(id, unix.SIGKILL) // it may have ended meanwhile
		}
	}
}

func keygen(t *testing.T, file string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
}

// sshReport is what the test reads of the report besides deployed.
type sshReport struct {
	deployed
	Ready  struct{ P50, P99, Max float64 } `json:"ready"`
	Copies *float64                        `json:"origin_copies"`
	Bound  struct {
		Seconds float64 `json:"seconds"`
		Hosts   int     `json:"hosts"`
		Unknown string  `json:"unknown"`
	} `json:"bound"`
	Slow []slowHost `json:"slow"`
}

type slowHost struct {
	Host  string `json:"host"`
	Ready bool   `json:"ready"`
	Held  []struct {
		Kind string `json:"kind"`
		MS   int64  `json:"ms"`
	} `json:"held"`
	Now string `json:"now"`
}

// deploySSH deploys through a real ssh and a real sshd on each host; one
// has a slow link, and the report says what it waited for.
func deploySSH(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Root, lab.FUSE, lab.Tool("sshd"), lab.Tool("ssh"), lab.Tool("ssh-keygen"))
	l := lab.New(t, "origin", "a", "b", "c")
	o := newOrigin(t, l.Host("origin"))
	common, key := filepath.Join(o.Dir, "common"), filepath.Join(o.Dir, "deploy_key")
	must(t, os.MkdirAll(common, 0o755))
	keygen(t, key)
	nodes := []*node{o.newNode(l.Host("a")), o.newNode(l.Host("b")), o.newNode(l.Host("c"))}
	var list strings.Builder
	for _, n := range nodes {
		sshd(t, n, common, key+".pub")
		fmt.Fprintln(&list, "root@"+n.Addr)
	}
	hosts := filepath.Join(o.Dir, "hosts")
	must(t, os.WriteFile(hosts, []byte(list.String()), 0o644))
	tree := sampleTree(t, 20, 2, 2<<20)
	deploy := func(code int, version string, more ...string) (r sshReport, got result) {
		t.Helper()
		if got, _ := os.ReadFile(filepath.Join(tree, "VERSION")); string(got) != version { // else its mtime is another
			must(t, os.WriteFile(filepath.Join(tree, "VERSION"), []byte(version), 0o644))
		}
		got = o.dcfs(append([]string{"deploy", tree, "--as", version, "--key", o.key + ".key", "--origin", o.url(), "--publish-token-file", o.token,
			"--hosts", hosts, "--remote-dcfs", o.bin, "--mount", common + "/mnt", "--dest", common + "/releases", "--current", common + "/current",
			"--ssh", "ssh -F none -i " + key + " -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
			"--host-flag=--linger=0s", "--host-flag=--at-end=unmount", "--health", `test "$(cat ` + common + `/current/VERSION)" = "$DCFS_RELEASE"`}, more...)...)
		if got.code != code {
			t.Fatalf("want exit %d: %v", code, got)
		}
		if strings.HasPrefix(got.stdout, "{") {
			must(t, json.Unmarshal([]byte(got.stdout), &r))
		}
		return r, got
	}
	slow := nodes[2]
	slow.Shape(lab.Shape{Down: "8mbit"})
	r, got := deploy(0, "v1", "--json", "--origin-up", "1GiB", "--host-up", "1GiB", "--host-down", "8Mbit")
	if r.Outcome != "deployed" || r.Counts["done"] != 3 || r.Bound.Hosts != 3 || r.Bound.Seconds < 1 || r.Ready.Max < r.Bound.Seconds ||
		r.Copies == nil || *r.Copies < 0.9 || *r.Copies > 3.5 {
		t.Errorf("%+v\n%v", r, got)
	}
	// On a busy machine the others may be hardly faster: then nobody is slow.
	at := slices.IndexFunc(r.Slow, func(s slowHost) bool { return s.Host == "root@"+slow.Addr })
	switch apart := r.Ready.Max > max(1.5*r.Ready.P50, r.Ready.P50+1); {
	case at < 0 && apart:
		t.Errorf("the slow host is not named: %+v\n%v", r.Slow, got)
	case at < 0:
		t.Logf("all were slow: %+v", r.Ready)
	case !r.Slow[at].Ready || len(r.Slow[at].Held) == 0 || r.Slow[at].Held[0].MS < 500:
		t.Errorf("slow: %+v\n%v", r.Slow, got)
	}
	for _, n := range nodes {
		equal(t, tree, filepath.Join(n.Dir, "own/releases/v1"))
	}
	if lines := progressLines(t, got.stderr); len(lines) == 0 {
		t.Errorf("no progress: %v", got)
	}

	// One is given up: the rest go on, and it is said what it waits for. A host
	// with most of the release would fetch too little.
	slow.Shape(lab.Shape{Down: "400kbit"})
	must(t, os.RemoveAll(filepath.Join(slow.Dir, "own/releases/v1")))
	_, got = deploy(0, "v2", "--quorum", "2", "--straggler", "4s")
	for _, want := range []string{"2 done, 1 failed of 3 hosts", "the bound is unknown", "copies", "slow: root@" + slow.Addr, "; at the end "} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("the report does not say %q:\n%v", want, got)
		}
	}
	// Again, while the host that was given up still fetches: all come to the end.
	slow.Shape(lab.Shape{})
	r, got = deploy(0, "v2", "--json")
	if r.Counts["done"] != 3 {
		t.Errorf("again: %v", got)
	}
	equal(t, tree, filepath.Join(slow.Dir, "own/releases/v2"))
	for _, n := range nodes { // what ssh started goes on without it
		stopLeft(t, n)
	}
}

// stopLeft ends the dcfs processes that a host has left, and waits for their end.
func stopLeft(t *testing.T, n *node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := lab.Poll(ctx, func() (bool, error) {
		left := n.statuses()
		for _, s := range left {
			if p, err := os.FindProcess(s.PID); err == nil {
				_ = p.Signal(os.Interrupt) // it may have ended meanwhile
			}
		}
		return len(left) == 0, nil
	})
	if err != nil {
		t.Errorf("%s: processes are left: %v", n.Name, n.Processes())
	}
}
