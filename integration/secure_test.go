package integration

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// authority makes certificates with openssl(1), by the commands of
// docs/security.md.
type authority struct {
	t   testing.TB
	dir string
}

func newAuthority(t testing.TB) authority {
	a := authority{t, t.TempDir()}
	a.run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -keyout ca.key -out ca.pem -subj '/CN=dcfs fleet'")
	return a
}

func (a authority) run(script string, env ...string) {
	a.t.Helper()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = a.dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// issue makes a directory for --peer-tls with a certificate for the host.
func (a authority) issue(host, addr string) string {
	a.t.Helper()
	a.run(`
mkdir -p $host
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $host/key.pem -out $host.csr -subj "/CN=$host"
openssl x509 -req -in $host.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 90 -out $host/cert.pem \
    -extfile <(printf "subjectAltName=DNS:$host,IP:$addr\nextendedKeyUsage=serverAuth,clientAuth")
cp ca.pem $host/`, "host="+host, "addr="+addr)
	return filepath.Join(a.dir, host)
}

// expired does it with a certificate whose time is over.
func (a authority) expired(host string) string {
	a.t.Helper()
	dir := a.issue(host, "10.0.0.1")
	a.run(`
touch index.txt
printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=ca.srl\nnew_certs_dir=.\ncertificate=ca.pem\nprivate_key=ca.key\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' > ca.conf
openssl ca -batch -notext -config ca.conf -in $host.csr -startdate 20200101000000Z -enddate 20200201000000Z -out $host/cert.pem`, "host="+host)
	return dir
}

// says connects to addr from inside a host, sends a BitTorrent handshake, by
// openssl with these options if there are any, and returns what comes back.
func says(t testing.TB, h *lab.Host, addr string, hash [20]byte, options ...string) (heard []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	hello := append([]byte("\x13BitTorrent protocol"), make([]byte, 8)...)
	hello = append(append(hello, hash[:]...), "-XX0000-123456789012"...)
	if options == nil {
		conn, err := h.Dial(ctx, "tcp", addr)
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(3*time.Second)))
		_, _ = conn.Write(hello)
		heard, _ = io.ReadAll(io.LimitReader(conn, 68))
		return heard
	}
	// -quiet: what comes back, and nothing else, is on stdout.
	cmd := h.Command(ctx, "timeout", append([]string{"1", "openssl", "s_client", "-quiet", "-no_ign_eof", "-connect", addr}, options...)...)
	in, err := cmd.StdinPipe()
	must(t, err)
	var out bytes.Buffer
	cmd.Stdout = &out
	must(t, cmd.Start())
	_, _ = in.Write(hello)
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestPeerTLS: a fleet with certificates of its own, and strangers of every
// kind at the ports of an origin and of a host.
func TestPeerTLS(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Root, lab.Tool("openssl"), aria2.need)
	l := lab.New(t, "origin", "a", "b", "stranger")
	fleet, other := newAuthority(t), newAuthority(t)
	o := &origin{node: newNode(t, l.Host("origin"))}
	o.key, o.token = filepath.Join(o.Dir, "release"), filepath.Join(o.Dir, "token")
	o.ok("key", "generate", o.key)
	o.trust(o.key + ".pub")
	must(t, os.WriteFile(o.token, []byte("let-me-publish\n"), 0o600))
	own := fleet.issue("origin", o.Addr)
	o.proc = o.daemon("origin", "origin", "--listen", o.Addr+":"+originPort, "--peer-listen", o.Addr+":"+peerPort,
		"--publish-token-file", o.token, "--peer-tls", own, "--http", o.Addr+":7072")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	must(t, o.proc.WaitLog(ctx, "origin ready: https://"))
	url := "https://" + o.Addr + ":" + originPort
	source, file := sampleTree(t, 30, 3, 1<<20), filepath.Join(o.Dir, "v.torrent")
	o.ok("publish", source, "--as", "v", "--key", o.key+".key", "--origin", url, "--publish-token-file", o.token, "--peer-tls", own, "--out", file)
	hash := sha1.Sum([]byte(takeApart(t, file).info))

	// The fleet: a fetches from the origin, b from a alone.
	a, b := o.newNode(l.Host("a")), o.newNode(l.Host("b"))
	ofA, ofB := fleet.issue("a", a.Addr), fleet.issue("b", b.Addr)
	p := a.daemon("fetch", "fetch", "v", filepath.Join(a.Releases(), "v"), "--origin", url, "--peer-tls", ofA,
		"--linger", "10m", "--peer-listen", a.Addr+":7072")
	a.reach(p, "v", "lingering", 30*time.Second)
	b.ok("fetch", file, filepath.Join(b.Releases(), "v"), "--peer", a.Addr+":7072", "--peer-tls", ofB, "--linger", "0s")
	equal(t, source, filepath.Join(b.Releases(), "v"))
	b.ok("verify", "v", filepath.Join(b.Releases(), "v"), "--origin", url, "--peer-tls", ofB)
	if !strings.Contains(b.ok("ls", "--origin", url, "--peer-tls", ofB), "v") {
		t.Error("ls does not list the release")
	}

	strangers(t, o, l.Host("stranger"), file, hash, []string{o.Addr + ":" + peerPort, a.Addr + ":7072"}, fleet, other)
	if got := scrape(t, o.Host, "http://"+o.Addr+":7072"); figure(t, got, `dcfs_refused_connections_total{reason="certificate"}`) < 6 ||
		figure(t, got, "dcfs_tls_certificate_expiry_timestamp_seconds") < float64(time.Now().Add(80*24*time.Hour).Unix()) {
		t.Errorf("the origin's metrics:\n%s", got)
	}
	if resp, err := o.Client().Get("http://" + o.Addr + ":7072/v1/releases"); err != nil || resp.StatusCode != 404 {
		t.Errorf("the page for everybody serves releases: %v, %v", resp, err)
	}
	renewed(t, a, fleet, ofA)
	badFiles(t, b, url, fleet, other)
	stop(t, p)
}

// strangers try to get something, each in a way of its own. What comes over
// their host's link in all is a few handshakes.
func strangers(t *testing.T, o *origin, h *lab.Host, file string, hash [20]byte, ports []string, fleet, other authority) {
	t.Helper()
	before := h.Traffic()
	cert := func(dir string) []string {
		return []string{"-cert", filepath.Join(dir, "cert.pem"), "-key", filepath.Join(dir, "key.pem")}
	}
	foreign, expired := other.issue("stranger", h.Addr), fleet.expired("old")
	for _, port := range ports {
		for name, options := range map[string][]string{"no certificate": {"-tls1_3"}, "an old TLS": append(cert(fleet.issue("tls12", h.Addr)), "-tls1_2"),
			"another CA": cert(foreign), "expired": cert(expired)} {
			if heard := says(t, h, port, hash, options...); len(heard) > 0 {
				t.Errorf("%s at %s: heard %q", name, port, heard)
			}
		}
		if heard := says(t, h, port, hash); len(heard) > 0 && (heard[0] != 21 || len(heard) > 7) { // an alert of TLS
			t.Errorf("without TLS at %s: heard %q", port, heard)
		}
		// Whoever is of the fleet hears a handshake: the questions were right.
		if heard := says(t, h, port, hash, cert(fleet.issue("guest", h.Addr))...); !bytes.Contains(heard, hash[:]) {
			t.Errorf("a host of the fleet at %s: heard %q", port, heard)
		}
	}
	n := o.newNode(h)
	for i, flags := range [][]string{nil, {"--peer-tls", foreign}} {
		n.fails(69, nil, append([]string{"fetch", file, filepath.Join(n.Releases(), fmt.Sprint(i)), "--wait", "1s",
			"--peer", ports[0], "--peer", ports[1]}, flags...)...)
	}
	n.fails(65, []string{"--peer-tls"}, "ls", "--origin", "https://"+o.Addr+":"+originPort)
	n.fails(69, []string{"wants https://"}, "ls", "--origin", "http://"+o.Addr+":"+originPort)
	dir := filepath.Join(h.Dir, "aria2")
	stock := aria2.start(t, h, "aria2", withoutWebSeeds(t, file), dir, ports...)
	time.Sleep(2 * time.Second) // a stock client is told two peers, and tries
	stock.stop(t)
	if _, err := os.Stat(stock.done); err == nil {
		t.Error("a stock client has fetched it")
	}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if text, _ := os.ReadFile(path); err == nil && !d.IsDir() && !strings.HasSuffix(path, ".aria2") && len(bytes.Trim(text, "\x00")) > 0 {
			t.Errorf("a stock client has something of %s", path)
		}
		return nil
	})
	if got := h.Traffic().Received - before.Received; got > 256<<10 {
		t.Errorf("%d bytes came over the stranger's link", got)
	}
}

// renewed gives a running host another certificate.
func renewed(t *testing.T, n *node, ca authority, dir string) {
	t.Helper()
	shown := func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		out, _ := n.Command(ctx, "sh", "-c", "openssl s_client -connect "+n.Addr+":7072 </dev/null 2>/dev/null | openssl x509 -noout -subject").Output()
		return string(out)
	}
	if was := shown(); !strings.Contains(was, "CN = a") {
		t.Fatalf("it shows %q", was)
	}
	fresh := ca.issue("a-renewed", n.Addr)
	ca.run("mv $fresh/key.pem $fresh/cert.pem $dir/", "fresh="+fresh, "dir="+dir)
	time.Sleep(1100 * time.Millisecond)
	if is := shown(); !strings.Contains(is, "CN = a-renewed") {
		t.Errorf("it shows %q", is)
	}
}

// badFiles: files that cannot be used end a command with 78 and say what is
// wrong with which.
func badFiles(t *testing.T, n *node, url string, fleet, other authority) {
	t.Helper()
	half, mixed, foreign := fleet.issue("half", n.Addr), fleet.issue("mixed", n.Addr), other.issue("foreign", n.Addr)
	must(t, os.Remove(filepath.Join(half, "key.pem")))
	must(t, os.Rename(filepath.Join(fleet.issue("x", n.Addr), "key.pem"), filepath.Join(mixed, "key.pem")))
	fleet.run("cp ca.pem " + foreign)
	for dir, word := range map[string]string{
		filepath.Join(n.Dir, "none"): "no such file", half: "neither key.pem nor tls.key", mixed: "does not match",
		fleet.expired("late"): "expired on 2020-02-01", foreign: "does not come from",
	} {
		n.fails(78, []string{dir, word}, "fetch", "v", filepath.Join(n.Releases(), "w"), "--origin", url, "--peer-tls", dir)
		n.fails(78, []string{dir, word}, "origin", "--peer-tls", dir)
	}
	if levels, ok, code := n.diagnosis("--peer-tls", half); levels["tls"] != "fail" || ok || code == 0 {
		t.Errorf("doctor finds %v, exit %d", levels, code)
	}
	if levels, _, _ := n.diagnosis("--peer-tls", fleet.issue("well", n.Addr), "--origin", url); levels["tls"] != "ok" || levels["origin"] != "ok" {
		t.Errorf("doctor finds %v", levels)
	}
}

// TestPeerAllow: who is outside of the networks gets not one byte, of either
// port of an origin and of a host, and is not dialled.
func TestPeerAllow(t *testing.T) {
	lab.Require(t, lab.Root)
	l := lab.New(t, "origin", "a", "stranger")
	a, stranger := l.Host("a"), l.Host("stranger")
	networks := "--peer-allow=" + l.Host("origin").Addr + "," + a.Addr + "/32"
	o := newOrigin(t, l.Host("origin"), networks)
	source := sampleTree(t, 20, 1, 1<<20)
	release := o.publish(source, "v")
	hash := sha1.Sum([]byte(takeApart(t, release.file).info))
	n := o.newNode(a)
	p := n.daemon("fetch", "fetch", "v", filepath.Join(n.Releases(), "v"), "--origin", o.url(), networks, "--linger", "10m", "--peer-listen", n.Addr+":7072")
	n.reach(p, "v", "lingering", 30*time.Second)
	for _, port := range []string{o.Addr + ":" + peerPort, n.Addr + ":7072", o.Addr + ":" + originPort} {
		if heard := says(t, stranger, port, hash); len(heard) != 0 {
			t.Errorf("from outside at %s: heard %q", port, heard)
		}
		if port == o.Addr+":"+originPort {
			n.ok("ls", "--origin", o.url())
		} else if heard := says(t, a, port, hash); len(heard) == 0 {
			t.Errorf("from inside at %s: heard nothing", port)
		}
	}
	s := o.newNode(stranger)
	s.fails(69, nil, "fetch", release.file, filepath.Join(s.Releases(), "v"), "--wait", "1s", "--peer", n.Addr+":7072")
	s.fails(69, []string{"--peer-allow"}, "ls", "--origin", o.url())
	s.fails(64, []string{"--peer-allow", "10.0.0.0/8"}, "fetch", "v", filepath.Join(s.Releases(), "v"), "--peer-allow", "10.0.0.1/8")
	s.fails(69, nil, "fetch", release.file, filepath.Join(s.Releases(), "v"), "--wait", "1s", "--peer", n.Addr+":7072", "--peer-allow", "192.0.2.0/24")
	stop(t, p)
}
