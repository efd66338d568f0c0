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

// dnsLab is a host that resolves names at a real DNS server, whose answers the
// test gives, and an origin.
type dnsLab struct {
	*lab.Lab
	t      *testing.T
	o      *origin
	a      *node
	dns    *lab.Host
	server *lab.Process
}

func newDNSLab(t *testing.T) *dnsLab {
	lab.Require(t, lab.Root, lab.Tool("dnsmasq"), lab.Tool("unshare"))
	l := &dnsLab{Lab: lab.New(t, "dns", "origin", "a", "two"), t: t}
	l.o = newOrigin(t, l.Host("origin"))
	l.dns, l.a = l.Host("dns"), l.o.newNode(l.Host("a"))
	must(t, os.WriteFile(l.resolv(), []byte("nameserver "+l.dns.Addr+"\noptions timeout:1 attempts:1\n"), 0o644))
	return l
}

func (l *dnsLab) resolv() string { return filepath.Join(l.a.Dir, "resolv.conf") }

// names has _dcfs._tcp.example.test name the addresses, the first one first.
func (l *dnsLab) names(addresses ...string) {
	l.t.Helper()
	if l.server != nil {
		l.server.Kill()
	}
	words := []string{"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-daemon", "--user=root",
		"--pid-file=" + filepath.Join(l.dns.Dir, "pid"), "--listen-address=" + l.dns.Addr, "--bind-interfaces"}
	for i, a := range addresses {
		words = append(words, fmt.Sprintf("--host-record=o%d-%s.example.test,%s", i, strings.ReplaceAll(a, ".", "-"), a),
			fmt.Sprintf("--srv-host=_dcfs._tcp.example.test,o%d-%s.example.test,7070,%d,10", i, strings.ReplaceAll(a, ".", "-"), i))
	}
	l.server = l.dns.Start("dnsmasq", nil, "dnsmasq", words...)
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	must(l.t, lab.Poll(ctx, func() (bool, error) { // its log is that of the one before, too
		c, err := l.dns.Dial(ctx, "tcp", l.dns.Addr+":53")
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	}))
}

// words are a command of dcfs on the host, with the DNS server as the only one.
func (l *dnsLab) words(args ...string) []string {
	script := fmt.Sprintf(`mount --bind %s /etc/resolv.conf && exec "$@"`, l.resolv())
	return append([]string{"unshare", "--mount", "sh", "-c", script, "sh", l.a.bin}, args...)
}

func (l *dnsLab) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(l.t.Context(), 40*time.Second)
	defer cancel()
	words := l.words(args...)
	cmd := l.a.Command(ctx, words[0], words[1:]...)
	cmd.Env = l.a.env()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// originsByDNS: a host that knows the name of SRV records finds the origin by
// a real DNS server, passes over a dead one of lower priority, and says which
// name fails when there are none.
func originsByDNS(t *testing.T) {
	t.Parallel()
	l := newDNSLab(t)
	source := sampleTree(t, 5, 1, 1<<20)
	release := l.o.publish(source, "app/dns")
	l.names(l.dns.Addr, l.o.Addr)
	dest := filepath.Join(l.a.Releases(), "dns")
	if out, err := l.run("fetch", release.Version, dest, "--origin", "srv:_dcfs._tcp.example.test", "--linger", "0s"); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, l.server.Tail(20))
	}
	equal(t, source, dest)
	out, err := l.run("ls", "--origin", "srv:_nothing._tcp.example.test")
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 69 || !strings.Contains(out, "_nothing._tcp.example.test") {
		t.Errorf("%v: %s", err, out)
	}
}

// originsByDNSChange: what the DNS says is asked again, while a host waits for
// an origin and while it fetches: the first one that is named is dead, and the
// second dies on the way.
func originsByDNSChange(t *testing.T) {
	t.Parallel()
	l := newDNSLab(t)
	source := sampleTree(t, 5, 4, 1<<20)
	l.o.publish(source, "dns")
	two := newOrigin(t, l.Host("two"))
	two.key, two.token = l.o.key, l.o.token // the same release, as it was signed
	two.proc.Kill()
	two.start()
	two.publish(source, "dns")
	l.names(l.dns.Addr)
	l.a.Shape(lab.Shape{Down: "16mbit"}) // 4 MiB take two seconds
	dest := filepath.Join(l.a.Releases(), "dns")
	words := l.words("fetch", "dns", dest, "--origin", "srv:_dcfs._tcp.example.test", "--linger", "0s", "--wait", "30s")
	p := l.a.Start("fetch", func(c *exec.Cmd) { c.Env = l.a.env() }, words[0], words[1:]...)
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	must(t, p.WaitLog(ctx, "no origin answers yet"))
	l.names(l.o.Addr)
	must(t, lab.Poll(ctx, func() (bool, error) { return l.a.status("dns").BytesHave > 1<<20, nil }))
	l.o.proc.Kill()
	if s := l.a.status("dns"); s.BytesHave >= s.Bytes {
		t.Error("it was whole before the origin died: the test shows nothing")
	}
	l.names(two.Addr)
	if code, err := p.Wait(ctx); err != nil || code != 0 {
		t.Fatalf("exit %d, %v\n%s", code, err, p.Tail(30))
	}
	equal(t, source, dest)
}
