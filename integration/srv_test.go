package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// TestOriginsByDNS: a host that knows the name of SRV records finds the origin by
// a real DNS server, passes over a dead one of lower priority, and says which
// name fails when there are none.
func TestOriginsByDNS(t *testing.T) {
	lab.Require(t, lab.Root, lab.Tool("dnsmasq"), lab.Tool("unshare"))
	l := lab.New(t, "dns", "origin", "a")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 5, 1, 1<<20)
	release := o.publish(source, "app/dns")
	dns := l.Host("dns")
	p := dns.Start("dnsmasq", nil, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-daemon",
		"--user=root", "--pid-file="+filepath.Join(dns.Dir, "pid"), "--listen-address="+dns.Addr, "--bind-interfaces",
		"--host-record=one.example.test,"+dns.Addr, "--host-record=two.example.test,"+o.Addr,
		"--srv-host=_dcfs._tcp.example.test,one.example.test,7070,1,10", "--srv-host=_dcfs._tcp.example.test,two.example.test,7070,2,10")
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	must(t, p.WaitLog(ctx, "started"))
	a := o.newNode(l.Host("a"))
	resolv := filepath.Join(a.Dir, "resolv.conf")
	must(t, os.WriteFile(resolv, []byte("nameserver "+dns.Addr+"\noptions timeout:1 attempts:2\n"), 0o644))
	run := func(args ...string) (string, error) {
		script := fmt.Sprintf(`mount --bind %s /etc/resolv.conf && exec "$@"`, resolv)
		cmd := a.Command(ctx, "unshare", append([]string{"--mount", "sh", "-c", script, "sh", a.bin}, args...)...)
		cmd.Env = a.env()
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	dest := filepath.Join(a.Releases(), "dns")
	if out, err := run("fetch", release.Version, dest, "--origin", "srv:_dcfs._tcp.example.test", "--linger", "0s"); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, p.Tail(20))
	}
	equal(t, source, dest)
	out, err := run("ls", "--origin", "srv:_nothing._tcp.example.test")
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 69 || !strings.Contains(out, "_nothing._tcp.example.test") {
		t.Errorf("%v: %s", err, out)
	}
}
