package integration

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dcfs/integration/compare"
	"dcfs/integration/lab"
)

// foreignPort is where a foreign client accepts peers.
const foreignPort = "6881"

// foreignClient is a BitTorrent client of another make. It fetches the torrent
// into the directory, or checks what is there already, and seeds until it is
// stopped. It finds peers through the torrent's tracker or, when some are
// given, only those.
type foreignClient struct {
	name string
	need lab.Need
	args func(t *testing.T, h *lab.Host, label, torrent, dir string, peers []string) []string

	omits []string // what it does not make, below the release's directory
}

// foreignSeed is a running foreign client.
type foreignSeed struct {
	*lab.Process
	done string // a file that is there when all is
}

func (c foreignClient) start(t *testing.T, h *lab.Host, label, torrent, dir string, peers ...string) foreignSeed {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	args := c.args(t, h, label, torrent, dir, peers)
	return foreignSeed{h.Start(label, nil, args[0], args[1:]...), doneFile(h, label)}
}

func doneFile(h *lab.Host, label string) string { return filepath.Join(h.Dir, label+".finished") }

// finished waits until the client has all and has checked it.
func (s foreignSeed) finished(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	err := lab.Poll(ctx, func() (bool, error) {
		_, err := os.Stat(s.done)
		if err != nil && !s.Running() {
			return false, errors.New("it has ended")
		}
		return err == nil, nil
	})
	if err != nil {
		t.Fatalf("%s does not finish: %v\n%s", s.Label, err, s.Tail(40))
	}
}

// stop ends the client in order, so that it leaves its files in order.
func (s foreignSeed) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := s.Stop(ctx); err != nil {
		t.Errorf("%s: %v", s.Label, err)
	}
}

var aria2 = foreignClient{
	name: "aria2",
	need: lab.Tool("aria2c"),
	args: func(t *testing.T, h *lab.Host, label, torrent, dir string, peers []string) []string {
		hook := filepath.Join(h.Dir, label+".hook")
		must(t, os.WriteFile(hook, []byte("#!/bin/sh\n: > '"+doneFile(h, label)+"'\n"), 0o755))
		args := []string{"aria2c", "--no-conf", "--dir=" + dir, "--listen-port=" + foreignPort,
			"--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false",
			"--file-allocation=none", "--check-integrity=true", "--seed-ratio=0.0", "--summary-interval=5",
			"--bt-tracker-interval=2", "--on-bt-download-complete=" + hook}
		if len(peers) > 0 {
			args = append(args, "--bt-exclude-tracker=*", "--bt-tracker="+fixedTracker(t, h, peers))
		}
		return append(args, torrent)
	},
}

var libtorrent = foreignClient{
	name: "libtorrent",
	need: lab.Works("python3-libtorrent", "/usr/bin/python3", "-c", "import libtorrent"),
	args: func(t *testing.T, h *lab.Host, label, torrent, dir string, peers []string) []string {
		script, err := filepath.Abs("testdata/lt.py")
		must(t, err)
		return append([]string{"/usr/bin/python3", script, torrent, dir, h.Addr + ":" + foreignPort, doneFile(h, label)}, peers...)
	},
}

var transmission = foreignClient{
	name: "transmission",
	need: lab.Tool("transmission-cli"),
	args: func(t *testing.T, h *lab.Host, label, torrent, dir string, peers []string) []string {
		hook := filepath.Join(h.Dir, label+".hook")
		must(t, os.WriteFile(hook, []byte("#!/bin/sh\n: > '"+doneFile(h, label)+"'\n"), 0o755))
		if len(peers) > 0 { // it knows no other way to be told of one
			torrent = withAnnounce(t, torrent, fixedTracker(t, h, peers))
		}
		config := filepath.Join(h.Dir, label+".transmission")
		must(t, os.MkdirAll(config, 0o755))
		must(t, os.WriteFile(filepath.Join(config, "settings.json"), fmt.Appendf(nil, `{"bind-address-ipv4": %q,
			"utp-enabled": false, "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "rpc-enabled": false}`, h.Addr), 0o644))
		return []string{"transmission-cli", "--config-dir", config, "--no-portmap", "--port", foreignPort,
			"--encryption-tolerated", "--no-uplimit", "--no-downlimit", "--download-dir", dir, "--verify", "--finish", hook, torrent}
	},
	omits: []string{"/empty"},
}

// fixedTracker runs a tracker in the host that knows just these peers, for
// clients that take a peer's address from nobody else. It returns its URL.
func fixedTracker(t *testing.T, h *lab.Host, peers []string) string {
	t.Helper()
	var compact []byte
	for _, p := range peers {
		host, port, err := net.SplitHostPort(p)
		must(t, err)
		n, err := strconv.ParseUint(port, 10, 16)
		must(t, err)
		compact = append(compact, net.ParseIP(host).To4()...)
		compact = binary.BigEndian.AppendUint16(compact, uint16(n))
	}
	ln, err := h.Listen("tcp", h.Addr+":0")
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "d8:intervali2e5:peers%d:%se", len(compact), compact)
	})}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return "http://" + ln.Addr().String() + "/announce"
}

// TestForeignClients is the control of TestInterop: the two foreign clients
// exchange a torrent with each other by the same means. When this fails, the
// fault is not in dcfs.
func TestForeignClients(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Root, lab.Tool("rsync"), aria2.need, libtorrent.need)
	source := sampleTree(t, 20, 2, 1<<20)
	must(t, os.RemoveAll(filepath.Join(source, "lib/tool"))) // links are beyond this control
	torrent := filepath.Join(t.TempDir(), "t.torrent")
	out, err := exec.Command("/usr/bin/python3", "-c", `
import os, sys, libtorrent as lt
fs = lt.file_storage()
lt.add_files(fs, sys.argv[1])
c = lt.create_torrent(fs, 16384, lt.create_torrent.v1_only)
c.set_priv(True)
lt.set_piece_hashes(c, os.path.dirname(sys.argv[1]))
open(sys.argv[2], "wb").write(lt.bencode(c.generate()))`, source, torrent).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, pair := range [][2]foreignClient{{libtorrent, aria2}, {aria2, libtorrent}} {
		seed, leech := pair[0], pair[1]
		t.Run(seed.name+" to "+leech.name, func(t *testing.T) {
			l := lab.New(t, "seed", "leech")
			s := seed.start(t, l.Host("seed"), "seed", torrent, filepath.Dir(source))
			s.finished(t)
			dir := l.Host("leech").Releases()
			r := leech.start(t, l.Host("leech"), "leech", torrent, dir, l.Host("seed").Addr+":"+foreignPort)
			r.finished(t)
			r.stop(t)
			s.stop(t)
			diff, err := compare.Content(t.Context(), source, filepath.Join(dir, filepath.Base(source)))
			must(t, err)
			if len(diff) > 0 {
				t.Errorf("copy differs:\n%s", strings.Join(diff, "\n"))
			}
		})
	}
}
