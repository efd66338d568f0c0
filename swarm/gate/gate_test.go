package gate

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dcfs/swarm/gate/gatetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func identity(t testing.TB, dir string) *Identity {
	t.Helper()
	i, err := LoadIdentity(dir, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// serveEcho has a gate's listener send back what comes.
func serveEcho(t testing.TB, g *Gate) string {
	t.Helper()
	l, err := g.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { defer c.Close(); _, _ = io.Copy(c, c) })
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return l.Addr().String()
}

// says sends some megabytes there and back.
func says(g *Gate, addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := g.Dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	said := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	wrote := make(chan error, 1)
	go func() { _, err := c.Write(said); wrote <- err }()
	heard := make([]byte, len(said))
	if _, err = io.ReadFull(c, heard); err == nil && !bytes.Equal(heard, said) {
		err = errors.New("what came back is something else")
	}
	c.Close()
	<-wrote
	return err
}

func TestFleet(t *testing.T) {
	ca, other := gatetest.NewCA(t, "fleet"), gatetest.NewCA(t, "other")
	server := &Gate{Identity: identity(t, ca.Dir(gatetest.Leaf{}))}
	addr := serveEcho(t, server)
	if err := says(&Gate{Identity: identity(t, ca.Dir(gatetest.Leaf{Names: []string{"h"}}))}, addr); err != nil {
		t.Errorf("a host of the fleet: %v", err)
	}
	expired, err := LoadIdentity(ca.Dir(gatetest.Leaf{To: time.Now().Add(-time.Minute)}), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	strangers := map[string]*Gate{
		"of another CA": {Identity: identity(t, other.Dir(gatetest.Leaf{}))},
		"expired":       {Identity: expired},
		"without TLS":   {},
	}
	for name, g := range strangers {
		if err := says(g, addr); err == nil {
			t.Errorf("%s: it was let in", name)
		}
	}
	refused := func() bool { _, n := server.Refused(); return n >= int64(len(strangers)) }
	for end := time.Now().Add(10 * time.Second); !refused() && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // a stranger learns of it before it is counted
	}
	if outside, unproven := server.Refused(); outside != 0 || unproven != int64(len(strangers)) {
		t.Errorf("%d and %d refused, of %d strangers", outside, unproven, len(strangers))
	}
	// The other way: nothing is said to a server that is a stranger.
	addr = serveEcho(t, &Gate{Identity: identity(t, other.Dir(gatetest.Leaf{}))})
	var bad *tls.CertificateVerificationError
	if err := says(server, addr); !errors.As(err, &bad) {
		t.Errorf("a server of another CA: %v", err)
	}
}

// TestNotOneByte looks at the bytes themselves that strangers get.
func TestNotOneByte(t *testing.T) {
	ca := gatetest.NewCA(t, "fleet")
	handshake := []byte("\x13BitTorrent protocol")
	read := func(g *Gate, sent []byte) []byte {
		c, err := net.Dial("tcp", serveEcho(t, g))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * handshakeTime))
		_, _ = c.Write(sent)
		got, _ := io.ReadAll(c)
		return got
	}
	if got := read(&Gate{Identity: identity(t, ca.Dir(gatetest.Leaf{}))}, handshake); len(got) > 7 || len(got) > 0 && got[0] != 21 {
		t.Errorf("who speaks no TLS got more than an alert: %x", got)
	}
	if got := read(&Gate{Allow: Networks{netip.MustParsePrefix("10.0.0.0/8")}}, handshake); len(got) != 0 {
		t.Errorf("who is outside got %x", got)
	}
	// A client without a certificate thinks that the handshake is done, and gets
	// an alert then.
	conf := base()
	conf.InsecureSkipVerify = true
	c, err := tls.Dial("tcp", serveEcho(t, &Gate{Identity: identity(t, ca.Dir(gatetest.Leaf{}))}), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * handshakeTime))
	_, _ = c.Write(handshake)
	got, err := io.ReadAll(c)
	if len(got) != 0 || err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %q, %v", got, err)
	}
}

func TestAllow(t *testing.T) {
	inside := &Gate{Allow: Networks{netip.MustParsePrefix("127.0.0.0/8")}}
	outside := &Gate{Allow: Networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	if err := says(&Gate{}, serveEcho(t, inside)); err != nil {
		t.Errorf("from inside: %v", err)
	}
	if err := says(&Gate{}, serveEcho(t, outside)); err == nil {
		t.Error("it was let in from outside")
	}
	if n, _ := outside.Refused(); n != 1 {
		t.Errorf("%d refused", n)
	}
	addr := serveEcho(t, &Gate{})
	_, port, _ := net.SplitHostPort(addr)
	for _, a := range []string{addr, "localhost:" + port} {
		if err := says(outside, a); !errors.Is(err, ErrOutside) {
			t.Errorf("%s was dialled, outside: %v", a, err)
		}
	}
	if err := says(inside, addr); err != nil {
		t.Error(err)
	}
}

func TestParseNetworks(t *testing.T) {
	n, err := ParseNetworks("10.0.0.0/8, 192.0.2.7", "fd00::/8,")
	if err != nil || n.String() != "10.0.0.0/8,192.0.2.7/32,fd00::/8" {
		t.Fatalf("%v, %v", n, err)
	}
	for a, in := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "192.0.2.7": true, "192.0.2.8": false,
		"fd12::1": true, "fe80::1%eth0": false, "11.0.0.1": false} {
		if n.Has(netip.MustParseAddr(a)) != in {
			t.Errorf("%s: want %v", a, in)
		}
	}
	if !Networks(nil).Has(netip.MustParseAddr("1.2.3.4")) {
		t.Error("an empty list has not every address")
	}
	for _, bad := range []string{"10.0.0.1/8", "10.0.0.0/33", "ten", "10.0.0/8", "::ffff:10.0.0.0/104", "fe80::1%eth0", "10.0.0.0-10.0.0.9"} {
		if n, err := ParseNetworks(bad); err == nil {
			t.Errorf("%s is %v", bad, n)
		}
	}
}

func TestBadFiles(t *testing.T) {
	ca := gatetest.NewCA(t, "fleet")
	cert, key := ca.Issue(gatetest.Leaf{})
	_, otherKey := ca.Issue(gatetest.Leaf{})
	issue := func(l gatetest.Leaf) map[string][]byte {
		c, k := ca.Issue(l)
		return map[string][]byte{"ca.pem": ca.PEM(), "cert.pem": c, "key.pem": k}
	}
	for words, files := range map[string]map[string][]byte{
		"neither ca.pem nor ca.crt":     {"cert.pem": cert, "key.pem": key},
		"neither cert.pem nor tls.crt":  {"ca.pem": ca.PEM(), "key.pem": key},
		"neither key.pem nor tls.key":   {"ca.pem": ca.PEM(), "cert.pem": cert},
		"private key does not match":    {"ca.pem": ca.PEM(), "cert.pem": cert, "key.pem": otherKey},
		"ca.pem: there is no cert":      {"ca.pem": []byte("hello"), "cert.pem": cert, "key.pem": key},
		"cert.pem: there is no cert":    {"ca.pem": ca.PEM(), "cert.pem": key, "key.pem": key},
		"failed to find any PEM data":   {"ca.pem": ca.PEM(), "cert.pem": cert, "key.pem": nil},
		"a certificate in it cannot":    {"ca.pem": bytes.Replace(ca.PEM(), []byte("MII"), []byte("AAA"), 1), "cert.pem": cert, "key.pem": key},
		"does not come from":            {"ca.pem": gatetest.NewCA(t, "other").PEM(), "cert.pem": cert, "key.pem": key},
		"expired on":                    issue(gatetest.Leaf{To: time.Now().Add(-time.Second)}),
		"which is in the future":        issue(gatetest.Leaf{From: time.Now().Add(time.Hour)}),
		"may not be used for client":    issue(gatetest.Leaf{Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}),
		"may not be used for serverA":   issue(gatetest.Leaf{Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}),
		"has more than 1048576 bytes":   {"ca.pem": bytes.Repeat([]byte("x"), maxPEM+1), "cert.pem": cert, "key.pem": key},
		"neither ca.pem nor ca.crt: --": {},
	} {
		dir := t.TempDir()
		gatetest.Write(t, dir, files)
		if i, err := LoadIdentity(dir, false, nil); i != nil || !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), dir) {
			t.Errorf("want %q: %v", words, err)
		}
	}
	dir := t.TempDir() // as Kubernetes has it
	gatetest.Write(t, dir, map[string][]byte{"ca.crt": ca.PEM(), "tls.crt": cert, "tls.key": key})
	if i := identity(t, dir); i.Subject() != "CN=host" {
		t.Errorf("%v", i.Subject())
	}
	if err := os.Mkdir(filepath.Join(dir, "ca.pem"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(dir, false, nil); !errors.Is(err, ErrIdentity) {
		t.Errorf("a directory in the place of a file: %v", err)
	}
}

// TestRotation: a new CA and new certificates come in without a restart, and the
// old ones go; what does not fit is not taken.
func TestRotation(t *testing.T) {
	old, next := gatetest.NewCA(t, "old"), gatetest.NewCA(t, "new")
	dir := old.Dir(gatetest.Leaf{})
	var log bytes.Buffer
	id, err := LoadIdentity(dir, false, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	server := &Gate{Identity: id}
	addr := serveEcho(t, server)
	ofOld := &Gate{Identity: identity(t, old.Dir(gatetest.Leaf{}))}
	bothCAs := next.Dir(gatetest.Leaf{})
	gatetest.Write(t, bothCAs, map[string][]byte{"ca.pem": append(old.PEM(), next.PEM()...)})
	ofNext := &Gate{Identity: identity(t, bothCAs)}
	expect := func(step string, oldIn, nextIn bool) {
		t.Helper()
		id.mu.Lock()
		id.looked = time.Time{} // a second is over
		id.mu.Unlock()
		if err := says(ofOld, addr); (err == nil) != oldIn {
			t.Errorf("%s: a host of the old CA: %v", step, err)
		}
		if err := says(ofNext, addr); (err == nil) != nextIn {
			t.Errorf("%s: a host of the new CA: %v", step, err)
		}
	}
	expect("at first", true, false)
	gatetest.Write(t, dir, map[string][]byte{"ca.pem": append(old.PEM(), next.PEM()...)})
	expect("both CAs", true, true)
	cert, key := next.Issue(gatetest.Leaf{})
	gatetest.Write(t, dir, map[string][]byte{"cert.pem": cert}) // the key comes later
	expect("half of it", true, true)
	expect("half of it, still", true, true)
	if !strings.Contains(log.String(), "going on with the old") {
		t.Errorf("nothing was said of files that do not fit:\n%s", &log)
	}
	gatetest.Write(t, dir, map[string][]byte{"key.pem": key})
	expect("all of it", false, true) // ofOld does not know the new CA
	gatetest.Write(t, dir, map[string][]byte{"ca.pem": next.PEM()})
	expect("the old CA is gone", false, true)
}

func TestHTTP(t *testing.T) {
	ca := gatetest.NewCA(t, "fleet")
	g := &Gate{Identity: identity(t, ca.Dir(gatetest.Leaf{Names: []string{"127.0.0.1"}}))}
	l, err := g.ListenHTTP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Repeat("payload ", 1<<18)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			t.Error("a request without a verified certificate")
		}
		_, _ = io.WriteString(w, body)
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	defer func() { server.Close(); serving.Wait() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	get := func(id *Identity, host string) (string, error) {
		c := &http.Client{Transport: id.Secure(&http.Transport{DisableKeepAlives: true}), Timeout: 10 * time.Second}
		resp, err := c.Get("https://" + net.JoinHostPort(host, port))
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return string(text), err
	}
	if got, err := get(g.Identity, "127.0.0.1"); err != nil || got != body {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := get(g.Identity, "localhost"); err == nil || !strings.Contains(err.Error(), "localhost") {
		t.Errorf("a certificate for another name: %v", err)
	}
	for name, id := range map[string]*Identity{"nobody": nil, "another CA": identity(t, gatetest.NewCA(t, "other").Dir(gatetest.Leaf{}))} {
		if got, err := get(id, "127.0.0.1"); err == nil || got != "" {
			t.Errorf("%s got %d bytes, %v", name, len(got), err)
		}
	}
}

// TestSilence: those who connect and say nothing keep nobody out, and are
// bounded.
func TestSilence(t *testing.T) {
	ca := gatetest.NewCA(t, "fleet")
	g := &Gate{Identity: identity(t, ca.Dir(gatetest.Leaf{}))}
	addr := serveEcho(t, g)
	var silent []net.Conn
	defer func() {
		for _, c := range silent {
			c.Close()
		}
	}()
	local := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	for range 2 * maxHandshakesOne {
		if c, err := local.Dial("tcp", addr); err == nil { // else it was refused at once
			silent = append(silent, c)
		}
	}
	start := time.Now()
	if err := says(g, addr); err != nil || time.Since(start) > handshakeTime/2 {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	if _, n := g.Refused(); n < maxHandshakesOne {
		t.Errorf("%d of %d silent ones were refused", n, len(silent))
	}
}
