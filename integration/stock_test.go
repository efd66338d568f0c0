package integration

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// opentracker has dcfs hosts and a stock client find each other through a
// stock tracker; the origin is gone.
func opentracker(t *testing.T) {
	lab.Require(t, lab.Root, lab.Tool("rsync"), lab.Tool("opentracker"), aria2.need)
	t.Parallel()
	l := lab.New(t, "origin", "node", "tracker", "foreign", "last")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 20, 2, 2<<20)
	release := o.publish(source, "tracked/1")
	n, last, foreign := o.newNode(l.Host("node")), o.newNode(l.Host("last")), l.Host("foreign")
	n.ok("fetch", release.Version, filepath.Join(n.Releases(), "tracked"), "--origin", o.url(), "--linger", "0s")
	o.proc.Kill()

	torrent := withAnnounce(t, withoutWebSeeds(t, release.file), startOpentracker(t, l.Host("tracker"), release.Infohash))
	np := n.daemon("seed", "fetch", torrent, filepath.Join(n.Releases(), "tracked"), "--linger", "10m")
	n.reach(np, release.Version, "lingering", time.Minute)
	dir := filepath.Join(foreign.Dir, "fetched")
	p := aria2.start(t, foreign, "fetch", torrent, dir)
	p.finished(t)
	p.stop(t)
	foreignCopy(t, source, dir)

	dest := filepath.Join(last.Releases(), "tracked")
	last.ok("fetch", torrent, dest, "--linger", "0s")
	equal(t, source, dest)
}

// startOpentracker serves one info-hash by HTTP and returns the announce URL.
// Debian's is built to serve none but those of a list.
func startOpentracker(t *testing.T, h *lab.Host, infohash string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "opentracker-") // it drops its privileges before it reads
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	list, config := filepath.Join(dir, "whitelist"), filepath.Join(dir, "config")
	must(t, os.WriteFile(list, []byte(infohash+"\n"), 0o644))
	must(t, os.WriteFile(config, fmt.Appendf(nil, "listen.tcp %s:6969\naccess.whitelist %s\ntracker.user nobody\n", h.Addr, list), 0o644))
	h.Start("opentracker", nil, "opentracker", "-f", config)
	url := "http://" + h.Addr + ":6969/"
	answers(t, h, url+"stats")
	return url + "announce"
}

// answers waits until a server answers.
func answers(t *testing.T, h *lab.Host, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := lab.Poll(ctx, func() (bool, error) {
		resp, err := h.Client().Get(url)
		if err == nil {
			resp.Body.Close()
		}
		return err == nil, nil
	})
	if err != nil {
		t.Fatalf("%s does not answer: %v", url, err)
	}
}

// nginxWebSeed has stock clients fetch a dcfs release of which a plain web
// server has a copy and no peer anything.
func nginxWebSeed(t *testing.T) {
	lab.Require(t, lab.Root, lab.Tool("rsync"), lab.Tool("nginx"))
	t.Parallel()
	l := lab.New(t, "origin", "web")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 20, 2, 2<<20)
	release := o.publish(source, "static/1")
	copied := o.newNode(l.Host("web"))
	copied.ok("fetch", release.Version, filepath.Join(copied.Releases(), "1"), "--origin", o.url(), "--linger", "0s")
	o.proc.Kill()

	torrent := withWebSeed(t, release.file, startNginx(t, l.Host("web"), copied.Releases(), padding(t, l.Host("web"), release.file)))
	for _, client := range []foreignClient{aria2, libtorrent, transmission} {
		t.Run(client.name, func(t *testing.T) {
			lab.Require(t, client.need)
			foreign := l.Add(client.name)
			dir := filepath.Join(foreign.Dir, client.name)
			p := client.start(t, foreign, client.name, torrent, dir)
			p.finished(t)
			p.stop(t)
			foreignCopy(t, source, dir, client.omits...)
		})
	}
}

// withWebSeed writes a copy of a torrent that names one web seed and a tracker
// that nobody runs.
func withWebSeed(t *testing.T, torrent, url string) string {
	t.Helper()
	torrent = withAnnounce(t, withoutWebSeeds(t, torrent), "http://127.0.0.1:9/announce")
	text, err := os.ReadFile(torrent)
	must(t, err)
	text = fmt.Appendf(text[:len(text)-1], "8:url-list%d:%se", len(url), url)
	out := filepath.Join(t.TempDir(), "web-seed.torrent")
	must(t, os.WriteFile(out, text, 0o644))
	return out
}

var padFile = regexp.MustCompile(`4:pathl4:\.pad[0-9]+:([0-9]+)((?:\.[0-9]+)?)ee`)

// padding makes the pad files of a release in a directory of their own, as
// docs/swarm.md says: a plain web server has to have what stock clients ask for.
func padding(t *testing.T, h *lab.Host, torrent string) string {
	t.Helper()
	text, err := os.ReadFile(torrent)
	must(t, err)
	dir := filepath.Join(h.Dir, "padding")
	must(t, os.MkdirAll(filepath.Join(dir, "1/.pad"), 0o755))
	found := padFile.FindAllSubmatch(text, -1)
	if len(found) == 0 {
		t.Fatal("the release has no padding, which this is to test")
	}
	for _, m := range found {
		size, err := strconv.ParseInt(string(m[1]), 10, 64)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, "1/.pad", string(m[1])+string(m[2])), make([]byte, size), 0o644))
	}
	return dir
}

// startNginx serves the directory as docs/swarm.md says and returns its URL.
func startNginx(t *testing.T, h *lab.Host, dir, pads string) string {
	t.Helper()
	me, err := user.Current()
	must(t, err)
	config := filepath.Join(h.Dir, "nginx.conf")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `
user %[1]s;
daemon off;
worker_processes 1;
pid %[2]s/nginx.pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[2]s/nginx-body;
	proxy_temp_path %[2]s/nginx-proxy;
	fastcgi_temp_path %[2]s/nginx-fastcgi;
	uwsgi_temp_path %[2]s/nginx-uwsgi;
	scgi_temp_path %[2]s/nginx-scgi;
	server {
		listen %[3]s:8080;
		root %[4]s;
		location ~ /\.pad/ { root %[5]s; }
	}
}
`, me.Username, h.Dir, h.Addr, dir, pads), 0o644))
	h.Start("nginx", nil, "nginx", "-e", "stderr", "-c", config)
	url := "http://" + h.Addr + ":8080/"
	answers(t, h, url)
	return url
}
