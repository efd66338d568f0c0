package integration

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// wirePackets has a host send packets as they go over a wire. Otherwise a lab's
// counters see many packets as one, with one header.
func wirePackets(t *testing.T, hosts ...*lab.Host) {
	t.Helper()
	for _, h := range hosts {
		if out, err := h.Command(t.Context(), "ip", "link", "set", "dev", "eth0", "gso_max_segs", "1").CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", h.Name, err, out)
		}
	}
}

// rate is what a counter of a link gains a second over a time, as a part of a
// limit in bytes a second, and what it gains at most in any one second.
func rate(limit float64, during time.Duration, count func() uint64) (mean, worst float64) {
	const step = 100 * time.Millisecond
	type sample struct {
		at time.Time
		n  uint64
	}
	var all []sample
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(step) {
		all = append(all, sample{time.Now(), count()})
	}
	part := func(a, b sample) float64 { return float64(b.n-a.n) / b.at.Sub(a.at).Seconds() / limit }
	for i := 10; i < len(all); i++ {
		worst = max(worst, part(all[i-10], all[i]))
	}
	return part(all[0], all[len(all)-1]), worst
}

// TestLimits: what hosts and an origin are allowed to send and to receive is what
// their links carry: for a process, for all processes of a host, and with the web
// seed; with the plan and with the library alone.
func TestLimits(t *testing.T) {
	lab.Require(t, lab.Root, lab.Tool("curl"))
	for _, trade := range []bool{true, false} {
		t.Run(fmt.Sprintf("trade=%v", trade), func(t *testing.T) {
			l := lab.New(t, "origin", "a", "b", "c")
			wirePackets(t, l.Host("origin"), l.Host("a"), l.Host("b"), l.Host("c"))
			flag := fmt.Sprintf("--trade=%v", trade)
			o := newOrigin(t, l.Host("origin"), flag, "--up", "6MiB")
			source := sampleTree(t, 20, 4, 12<<20)
			o.publish(source, "one/v")
			o.publish(source, "two/w")
			a, b := o.newNode(l.Host("a")), o.newNode(l.Host("b"))
			fetch := func(n *node, version string, more ...string) *lab.Process {
				return n.daemon(filepath.Base(version), append([]string{"fetch", version, filepath.Join(n.Releases(), version), "--origin", o.url(), flag}, more...)...)
			}
			procs := []*lab.Process{
				fetch(a, "one/v", "--host-down", "2MiB"), fetch(a, "two/w", "--host-down", "2MiB"), fetch(b, "one/v", "--down", "1MiB"),
			}
			web := l.Host("c").Start("curl", nil, "curl", "-sS", "-o", "/dev/null", o.url()+"/data/one/v/big/00.bin", o.url()+"/data/one/v/big/01.bin")
			time.Sleep(time.Second)
			type link struct {
				name  string
				limit float64
				count func() uint64
			}
			var done []chan struct{}
			for _, c := range []link{
				{"origin", 6 << 20, func() uint64 { return o.Traffic().Sent }},
				{"two processes of a", 2 << 20, func() uint64 { return a.Traffic().Received }},
				{"b", 1 << 20, func() uint64 { return b.Traffic().Received }},
			} {
				end := make(chan struct{})
				done = append(done, end)
				go func() {
					defer close(end)
					mean, worst := rate(c.limit, 4*time.Second, c.count)
					t.Logf("%s: %.3f of the limit, %.3f in the worst second", c.name, mean, worst)
					// Below, too, or nothing was measured. Other processes of this machine may hold a
					// transfer up, and then it is caught up on.
					if mean > 1.05 || mean < 0.8 || worst > 1.25 {
						t.Errorf("%s: the limit does not hold", c.name)
					}
				}()
			}
			for _, end := range done {
				<-end
			}
			web.Kill()
			for _, p := range procs {
				p.Kill()
			}
		})
	}
}

// TestReadsUnderALimit: what is read comes before what is prefetched, below the
// limit, and the prefetch uses the rest.
func TestReadsUnderALimit(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE)
	l := lab.New(t, "origin", "idle", "busy")
	o := newOrigin(t, l.Host("origin"))
	o.publish(sampleTree(t, 5, 4, 16<<20), "v")
	const limit = 2 << 20
	reads := func(name string, more ...string) (median time.Duration) {
		n := o.newNode(l.Host(name))
		at := filepath.Join(n.Mnt(), "m")
		must(t, os.MkdirAll(at, 0o755))
		p := n.daemon("mount", append([]string{"mount", "v", at, "--origin", o.url(), "--down", "2MiB", "--at-end", "unmount", "--survive=false"}, more...)...)
		n.reach(p, "v", "mounted", 20*time.Second)
		time.Sleep(500 * time.Millisecond)
		before, began := n.Traffic().Received, time.Now()
		var took []time.Duration
		r := rand.New(rand.NewPCG(1, 2))
		for range 15 {
			f, err := os.Open(filepath.Join(at, fmt.Sprintf("big/%02d.bin", 1+r.IntN(3))))
			must(t, err)
			start := time.Now()
			_, err = f.ReadAt(make([]byte, 4096), int64(r.IntN(15<<20)))
			took = append(took, time.Since(start))
			f.Close()
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		slices.Sort(took)
		part := float64(n.Traffic().Received-before) / time.Since(began).Seconds() / limit
		t.Logf("%s: a cold read takes %s (median), %s (slowest); %.2f of the limit used", name, took[len(took)/2], took[len(took)-1], part)
		if part > 1.05 {
			t.Errorf("%s: the limit does not hold", name)
		}
		if name == "busy" && part < 0.5 {
			t.Error("the prefetch leaves the limit unused")
		}
		stop(t, p)
		return took[len(took)/2]
	}
	idle, busy := reads("idle", "--lazy"), reads("busy")
	if busy > 3*idle+100*time.Millisecond {
		t.Errorf("a cold read takes %s beside the prefetch and %s without", busy, idle)
	}
}
