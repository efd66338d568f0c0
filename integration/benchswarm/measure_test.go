package benchswarm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"dcfs/integration/lab"
)

func dcfsBinary(b *testing.B) string {
	if *built != "" {
		path, err := filepath.Abs(*built)
		if err != nil {
			b.Fatal(err)
		}
		return path
	}
	bin := filepath.Join(b.TempDir(), "dcfs")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "dcfs/cmd/dcfs")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build dcfs: %v: %s", err, out)
	}
	return bin
}

// makeTree makes files as an application has them, a few large and many small,
// of bytes that do not compress, and returns their size together.
func makeTree(b *testing.B, dir string, total int64) int64 {
	src := rand.NewChaCha8([32]byte{1})
	rng := rand.New(src)
	var made int64
	for i := 0; made < total; i++ {
		n := int64(rng.ExpFloat64() * 65536)
		if i%40 == 0 {
			n = 4 << 20
		}
		n = min(max(n, 100), total-made)
		data := make([]byte, n)
		src.Read(data)
		path := filepath.Join(dir, fmt.Sprintf("lib%02d", i%17), fmt.Sprintf("file%05d.so", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			b.Fatal(err)
		}
		made += n
	}
	return made
}

// usage reads processor time, that of ended children included, and peak memory
// of a live process.
func usage(pid int) (cpu, rssMiB float64) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		if f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:])); len(f) > 14 {
			for _, ticks := range f[11:15] {
				n, _ := strconv.ParseFloat(ticks, 64)
				cpu += n / 100
			}
		}
	}
	raw, _ = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			rssMiB = kib / 1024
		}
	}
	return cpu, rssMiB
}

// since is the traffic from before to now.
func since(h *lab.Host, before lab.Traffic) lab.Traffic {
	now := h.Traffic()
	return lab.Traffic{Sent: now.Sent - before.Sent, Received: now.Received - before.Received}
}

// waitAll waits until each of the hosts is done, as done says; it returns the
// seconds from start to each.
func waitAll(b *testing.B, start time.Time, hosts []*lab.Host, done func(*lab.Host) (time.Time, bool)) []float64 {
	ctx, cancel := context.WithTimeout(b.Context(), *limit)
	defer cancel()
	seconds := make([]float64, len(hosts))
	err := lab.Poll(ctx, func() (bool, error) {
		left := 0
		for i, h := range hosts {
			if seconds[i] != 0 {
				continue
			}
			if at, ok := done(h); ok {
				seconds[i] = at.Sub(start).Seconds()
			} else {
				left++
			}
		}
		return left == 0, nil
	})
	if err != nil {
		b.Fatalf("not all hosts finish within %s: %v: %.1f", *limit, err, seconds)
	}
	return seconds
}

// appeared is when a file was made.
func appeared(path string) (time.Time, bool) {
	st, err := os.Stat(path)
	if err != nil {
		return time.Time{}, false
	}
	return st.ModTime(), true
}

// line is one run's figures, as JSON.
type line struct {
	Tool       string     `json:"tool"`
	Hosts      int        `json:"hosts"`
	Racks      int        `json:"racks,omitempty"`
	Mbit       int        `json:"mbit"`
	Bytes      int64      `json:"bytes"`
	Bound      float64    `json:"bound_s"`
	Last       float64    `json:"last_s"`
	Median     float64    `json:"median_s"`
	Efficiency float64    `json:"efficiency"`
	Copies     float64    `json:"origin_copies_link"`
	LinkF      float64    `json:"received_link_max"`
	OwnF       float64    `json:"received_own_max,omitempty"`
	RackF      []float64  `json:"received_rack,omitempty"` // over the link of each rack, ÷ bytes
	RackSentF  []float64  `json:"sent_rack,omitempty"`
	CPU        float64    `json:"cpu_s_host"`
	OriginCPU  float64    `json:"cpu_s_origin"`
	RSS        float64    `json:"rss_mib_max"`
	Load       string     `json:"load"`
	Fall       *waterfall `json:"waterfall,omitempty"`
	Use        *use       `json:"links_in_use,omitempty"`
}

// report prints a run for people and as a line of JSON.
func report(w io.Writer, name string, s setup, o outcome) {
	bound := s.bound(o.bytes).Seconds()
	var times []float64
	l := line{Tool: name, Hosts: s.hosts, Racks: s.racks, Mbit: s.mbit, Bytes: o.bytes, Bound: bound,
		Copies: float64(o.origin.link.Sent) / float64(o.bytes), OriginCPU: o.origin.cpu, Fall: o.fall, Use: o.use}
	for _, h := range o.hosts {
		times = append(times, h.seconds)
		l.LinkF = max(l.LinkF, float64(h.link.Received)/float64(o.bytes))
		l.OwnF = max(l.OwnF, float64(h.fetched)/float64(o.bytes))
		l.RSS = max(l.RSS, h.rssMiB)
		l.CPU += h.cpu / float64(len(o.hosts))
	}
	for _, r := range o.racks {
		l.RackF = append(l.RackF, float64(r.Received)/float64(o.bytes))
		l.RackSentF = append(l.RackSentF, float64(r.Sent)/float64(o.bytes))
	}
	slices.Sort(times)
	l.Last, l.Median = times[len(times)-1], times[len(times)/2]
	l.Efficiency = bound / l.Last
	load, _ := os.ReadFile("/proc/loadavg")
	l.Load = strings.Fields(string(load))[0]
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\ntool\tcase\tbound s\tlast s\tmedian s\tefficiency\torigin ÷ F (link)\treceived ÷ F (link, own)\tCPU s (host, origin)\tRSS MiB\tload")
	fmt.Fprintf(t, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.3f\t%.2f\t%.3f %.3f\t%.2f %.2f\t%.0f\t%s\n", name, s, l.Bound, l.Last, l.Median,
		l.Efficiency, l.Copies, l.LinkF, l.OwnF, l.CPU, l.OriginCPU, l.RSS, l.Load)
	t.Flush()
	if s.racks > 0 {
		fmt.Fprintf(w, "over the links of %d racks of %.0f Mbit/s, ÷ F: in %.2f, out %.2f\n", s.racks, s.rackMbit(), l.RackF, l.RackSentF)
	}
	if o.fall != nil {
		o.fall.print(w)
	}
	if o.use != nil {
		o.use.print(w)
	}
	json.NewEncoder(w).Encode(l)
}
