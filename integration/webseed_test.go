package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// wall drops what the host sends to the ports of an address, as a firewall does
// that says nothing.
func wall(t *testing.T, h *lab.Host, addr, ports string) {
	t.Helper()
	match := "tcp dport " + ports
	if addr != "" {
		match = "ip daddr " + addr + " " + match
	}
	for _, rule := range []string{"add table inet wall", "add chain inet wall out { type filter hook output priority 0 ; }",
		"add rule inet wall out " + match + " drop"} {
		if out, err := h.Command(t.Context(), "nft", rule).CombinedOutput(); err != nil {
			t.Fatalf("nft %s: %v: %s", rule, err, out)
		}
	}
}

// serveDirectory starts nginx on the host, which knows nothing but the
// directory, and returns its URL.
func serveDirectory(t *testing.T, h *lab.Host, dir string) string {
	t.Helper()
	conf := filepath.Join(h.Dir, "nginx.conf")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, `
user root;
daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log;
events {}
http {
	access_log %[1]s/access.log;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	server {
		listen %[2]s:80;
		location /releases/ { alias %[3]s/; }
	}
}
`, h.Dir, h.Addr, dir), 0o644))
	p := h.Start("nginx", nil, "nginx", "-c", conf, "-p", h.Dir)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := lab.Poll(ctx, func() (bool, error) {
		c, err := h.Dial(ctx, "tcp", h.Addr+":80")
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	})
	if err != nil {
		t.Fatalf("nginx: %v\n%s", err, p.Tail(20))
	}
	return "http://" + h.Addr + "/releases/"
}

// TestWebSeedFallback: the origin sends nothing by HTTP to a host that reaches
// its peer port, and everything to one that does not; two hosts that reach
// neither share what a plain nginx serves.
func TestWebSeedFallback(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Root, lab.Tool("nginx"), lab.Tool("nft"))
	l := lab.New(t, "origin", "near", "walled", "x", "y", "web")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 60, 3, 2<<20)
	release := o.publish(source, "app/web-1")
	fetch := func(name, word string, more ...string) (*node, *lab.Process, string) {
		n := o.newNode(l.Host(name))
		dest := filepath.Join(n.Releases(), "web-1")
		return n, n.daemon("fetch", append([]string{"fetch", word, dest, "--linger", "10m",
			"--peer-listen", n.Addr + ":7072"}, more...)...), dest
	}
	webSeedSent := func() float64 {
		return figure(t, scrape(t, o.Host, o.url()), `dcfs_origin_webseed_sent_bytes_total{version="app/web-1"}`)
	}
	near, pNear, dest := fetch("near", release.Version, "--origin", o.url(), "--down", "3MiB")
	near.reach(pNear, release.Version, "lingering", time.Minute)
	if s := near.status(release.Version); s.BytesWebSeed != 0 || s.BytesOrigin < release.Bytes || webSeedSent() != 0 {
		t.Errorf("the web seed was asked: %+v, it sent %v", s, webSeedSent())
	}

	wall(t, l.Host("walled"), "", "{ 7071, 7072 }")
	walled, pWalled, walledDest := fetch("walled", release.Version, "--origin", o.url())
	url := serveDirectory(t, l.Host("web"), near.Releases())
	var pair []*node
	var procs []*lab.Process
	for _, name := range []string{"x", "y"} {
		wall(t, l.Host(name), o.Addr, "{ 7070, 7071 }")
		n, p, _ := fetch(name, release.file, "--web-seed", url, "--peer", l.Host("x").Addr+":7072", "--peer", l.Host("y").Addr+":7072")
		pair, procs = append(pair, n), append(procs, p)
	}
	walled.reach(pWalled, release.Version, "lingering", time.Minute)
	s := walled.status(release.Version)
	if s.BytesWebSeed != s.Bytes || s.BytesOrigin+s.BytesPeers != 0 || webSeedSent() != float64(release.Bytes) {
		t.Errorf("all came by HTTP, but: %+v, the origin sent %v of %d bytes", s, webSeedSent(), release.Bytes)
	}
	equal(t, source, walledDest)
	var web, peers int64
	for i, n := range pair {
		n.reach(procs[i], release.Version, "lingering", time.Minute)
		equal(t, source, filepath.Join(n.Releases(), "web-1"))
		s := n.status(release.Version)
		web, peers = web+s.BytesWebSeed, peers+s.BytesPeers
	}
	if web < s.Bytes || web > s.Bytes*18/10 || peers == 0 {
		t.Errorf("nginx sent %d bytes, the two hosts each other %d, of %d", web, peers, s.Bytes)
	}
	access, err := os.ReadFile(filepath.Join(l.Host("web").Dir, "access.log"))
	if err != nil || !strings.Contains(string(access), "/releases/web-1/big/00.bin") {
		t.Errorf("nginx was not asked: %v\n%.500s", err, access)
	}
	equal(t, source, dest)
}
