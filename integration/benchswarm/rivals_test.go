package benchswarm

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"dcfs/integration/lab"
)

const peerPort = "6881"

// tracker tells everybody of everybody. It stands on a link that is not shaped.
func tracker(b *testing.B, h *lab.Host) string {
	var mu sync.Mutex
	known := map[string]bool{}
	ln, err := h.Listen("tcp", h.Addr+":0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		ip, _, _ := net.SplitHostPort(r.RemoteAddr)
		if port, err := strconv.ParseUint(r.URL.Query().Get("port"), 10, 16); err == nil && net.ParseIP(ip).To4() != nil {
			known[string(binary.BigEndian.AppendUint16(net.ParseIP(ip).To4(), uint16(port)))] = true
		}
		var compact []byte
		for k := range known {
			compact = append(compact, k...)
		}
		fmt.Fprintf(w, "d8:intervali2e12:min intervali2e5:peers%d:%se", len(compact), compact)
	})}
	go server.Serve(ln) // ends with Close
	b.Cleanup(func() { server.Close() })
	return "http://" + ln.Addr().String() + "/announce"
}

// clients runs a BitTorrent client on the origin, which has everything, and
// then on all hosts. words makes its command line; it makes the file done when
// all is here.
func clients(b *testing.B, w *work, words func(h *lab.Host, torrent, dir, tracker, done string) []string) outcome {
	url := tracker(b, w.aside)
	seed := filepath.Join(w.origin.Dir, "seed")
	if err := os.MkdirAll(seed, 0o755); err != nil {
		b.Fatal(err)
	}
	// The torrent's top directory is named after the release.
	if out, err := exec.Command("cp", "-a", w.tree, filepath.Join(seed, "bench")).CombinedOutput(); err != nil {
		b.Fatalf("cp: %v: %s", err, out)
	}
	// A torrent of its own: stock clients do not make the pad files of ours.
	torrent := filepath.Join(w.origin.Dir, "bench.torrent")
	if out, err := exec.Command("/usr/bin/python3", "testdata/mktorrent.py", filepath.Join(seed, "bench"), torrent).CombinedOutput(); err != nil {
		b.Fatalf("mktorrent.py: %v: %s", err, out)
	}
	begin := func(h *lab.Host, dir string) *lab.Process {
		line := words(h, torrent, dir, url, filepath.Join(h.Dir, "done"))
		return h.Start("client", nil, line[0], line[1:]...)
	}
	origin := begin(w.origin, seed)
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	if err := lab.Poll(ctx, func() (bool, error) {
		_, ok := appeared(filepath.Join(w.origin.Dir, "done"))
		return ok, nil
	}); err != nil {
		b.Fatalf("the seed does not come up: %v\n%s", err, origin.Tail(20))
	}
	before := w.shape()
	start := time.Now()
	procs := []*lab.Process{origin}
	for _, h := range w.hosts {
		procs = append(procs, begin(h, h.Releases()))
	}
	seconds := waitAll(b, start, w.hosts, func(h *lab.Host) (time.Time, bool) { return appeared(filepath.Join(h.Dir, "done")) })
	return collect(w, procs, before, seconds)
}

// collect reads the counters of all hosts, the origin first.
func collect(w *work, procs []*lab.Process, before []lab.Traffic, seconds []float64) outcome {
	out := outcome{bytes: w.bytes, racks: w.crossed()}
	for i, h := range w.all() {
		got := host{link: since(h, before[i])}
		got.cpu, got.rssMiB = usage(procs[i].PID())
		if i == 0 {
			out.origin = got
			continue
		}
		got.seconds = seconds[i-1]
		out.hosts = append(out.hosts, got)
	}
	return out
}

type aria2Tool struct{}

func (aria2Tool) run(b *testing.B, w *work) outcome {
	return clients(b, w, func(h *lab.Host, torrent, dir, url, done string) []string {
		hook := filepath.Join(h.Dir, "hook")
		if err := os.WriteFile(hook, []byte("#!/bin/sh\n: > '"+done+"'\n"), 0o755); err != nil {
			b.Fatal(err)
		}
		return []string{"aria2c", "--no-conf", "--dir=" + dir, "--listen-port=" + peerPort,
			"--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--file-allocation=none",
			"--check-integrity=true", "--seed-ratio=0.0", "--summary-interval=0", "--bt-tracker-interval=2",
			"--on-bt-download-complete=" + hook, "--bt-exclude-tracker=*", "--bt-tracker=" + url, torrent}
	})
}

type libtorrentTool struct{}

func (libtorrentTool) run(b *testing.B, w *work) outcome {
	script, err := filepath.Abs("testdata/lt.py")
	if err != nil {
		b.Fatal(err)
	}
	return clients(b, w, func(h *lab.Host, torrent, dir, url, done string) []string {
		return []string{"/usr/bin/python3", script, torrent, dir, h.Addr + ":" + peerPort, done, url}
	})
}

// udpcastTool sends one archive to all hosts by multicast, at 96 % of the rate:
// it does not find out how much the links carry. Its receivers find the sender by
// broadcast, for which the lab's addresses have one.
type udpcastTool struct{}

func (udpcastTool) run(b *testing.B, w *work) outcome {
	archive := filepath.Join(w.origin.Dir, "tree.tar")
	if out, err := exec.Command("tar", "-C", w.tree, "-cf", archive, ".").CombinedOutput(); err != nil {
		b.Fatalf("tar: %v: %s", err, out)
	}
	for _, h := range w.all() {
		if out, err := h.Command(b.Context(), "ip", "route", "add", "224.0.0.0/4", "dev", "eth0").CombinedOutput(); err != nil {
			b.Fatalf("ip route add: %v: %s", err, out)
		}
	}
	before := w.shape()
	start := time.Now()
	var procs []*lab.Process
	for _, h := range w.hosts {
		procs = append(procs, h.Start("receive", nil, "sh", "-c",
			"udp-receiver --nokbd --interface eth0 | tar -C '"+h.Releases()+"' -xf - && : > '"+filepath.Join(h.Dir, "done")+"'; exec sleep 3600"))
	}
	sender := w.origin.Start("send", nil, "sh", "-c", fmt.Sprintf(
		"udp-sender --nokbd --interface eth0 --file '%s' --min-receivers %d --max-bitrate %dk; exec sleep 3600", archive, len(w.hosts), w.mbit*960))
	seconds := waitAll(b, start, w.hosts, func(h *lab.Host) (time.Time, bool) { return appeared(filepath.Join(h.Dir, "done")) })
	procs = append([]*lab.Process{sender}, procs...)
	out := collect(w, procs, before, seconds)
	for _, p := range procs {
		p.Kill() // the sleep that kept its figures
	}
	return out
}
