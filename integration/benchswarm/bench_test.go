package benchswarm

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

var (
	cases  = flag.String("cases", "8x100,24x20", "hosts x Mbit/s of every link, both ways; 4r4x50: 4 racks of 4 hosts")
	over   = flag.Float64("over", 3, "racks: how much more their hosts' links carry than the rack's own")
	size   = flag.Int64("mib", 64, "MiB to distribute")
	tools  = flag.String("tools", "dcfs,aria2,libtorrent,udpcast", "what runs, in this order; dcfs-flat is dcfs whose hosts do not know of racks")
	rounds = flag.Int("rounds", 1, "how often")
	trades = flag.Bool("trade", true, "dcfs hosts share pieces by their own plan (--trade)")
	built  = flag.String("dcfs", "", "a built dcfs; built anew when empty")
	limit  = flag.Duration("limit", 5*time.Minute, "time limit of one run")
	extra  = flag.String("publish", "", "further words for dcfs publish")
	verb   = flag.Bool("messages", false, "print the messages of one host and of the origin")
)

// setup is one case: N hosts and an origin, all on links of the same rate.
type setup struct {
	hosts int // in all
	mbit  int
	racks int   // 0: all on one switch, as the origin always is
	bytes int64 // of the tree
}

func (s setup) String() string {
	if s.racks > 0 {
		return fmt.Sprintf("%dr%dx%d", s.racks, s.hosts/s.racks, s.mbit)
	}
	return fmt.Sprintf("%dx%d", s.hosts, s.mbit)
}

// rackMbit is the rate of a rack's link.
func (s setup) rackMbit() float64 { return float64(s.mbit*s.hosts/s.racks) / *over }

// bound is the least time in which anybody could do it: the origin has to send
// every byte, each host to receive every byte, and all together to send every
// byte to everybody.
func (s setup) bound(bytes int64) time.Duration {
	rate := float64(s.mbit) * 1e6 / 8
	f, n := float64(bytes), float64(s.hosts)
	least := max(f/rate, n*f/(rate+n*rate))
	if s.racks > 0 {
		least = max(least, f*8/1e6/s.rackMbit())
	}
	return time.Duration(least * float64(time.Second))
}

// tool is a program that can bring a tree, or its archive, to all hosts.
type tool interface {
	// run starts everything and returns once every host has it all.
	run(b *testing.B, w *work) outcome
}

// work is what a tool works on.
type work struct {
	setup
	lab    *lab.Lab
	origin *lab.Host
	hosts  []*lab.Host
	racks  []*lab.Rack
	aside  *lab.Host // unshaped, for a tracker
	tree   string    // the directory to distribute
	dcfs   string    // the binary
}

// host is what one host took.
type host struct {
	seconds float64 // until it had everything
	cpu     float64 // seconds of processor time
	rssMiB  float64 // peak
	link    lab.Traffic
	fetched int64 // payload that it received by its own count; 0 if unknown
}

// outcome is what one run took.
type outcome struct {
	bytes  int64 // payload
	hosts  []host
	origin host
	racks  []lab.Traffic
	fall   *waterfall // nil when unknown
	use    *use       // nil when unknown
}

func known(name string) (tool, lab.Need) {
	switch name {
	case "dcfs":
		return dcfsTool{}, lab.Root
	case "dcfs-flat":
		return dcfsTool{flat: true}, lab.Root
	case "aria2":
		return aria2Tool{}, lab.Tool("aria2c")
	case "libtorrent":
		return libtorrentTool{}, lab.Works("python3-libtorrent", "/usr/bin/python3", "-c", "import libtorrent")
	case "udpcast":
		return udpcastTool{}, lab.Tool("udp-sender")
	}
	return nil, lab.Need{}
}

var caseForm = regexp.MustCompile(`^(?:(\d+)r)?(\d+)x(\d+)$`)

func BenchmarkSwarm(b *testing.B) {
	bin := dcfsBinary(b)
	tree := b.TempDir()
	made := makeTree(b, tree, *size<<20)
	for _, c := range strings.Split(*cases, ",") {
		m := caseForm.FindStringSubmatch(c)
		if m == nil {
			b.Fatalf("-cases: %q is not like 8x100", c)
		}
		racks, _ := strconv.Atoi(m[1])
		hosts, _ := strconv.Atoi(m[2])
		mbit, _ := strconv.Atoi(m[3])
		s := setup{hosts * max(racks, 1), mbit, racks, made}
		for round := range *rounds {
			for _, name := range strings.Split(*tools, ",") {
				t, need := known(name)
				if t == nil {
					b.Fatalf("-tools: %q is none that is known", name)
				}
				b.Run(fmt.Sprintf("%s/%s/%d", s, name, round+1), func(b *testing.B) {
					lab.Require(b, need)
					w := newWork(b, s, tree, bin)
					out := t.run(b, w)
					report(os.Stdout, name, s, out)
				})
			}
		}
	}
}

// newWork makes the hosts and shapes their links.
func newWork(b *testing.B, s setup, tree, bin string) *work {
	w := &work{setup: s, lab: lab.New(b, "origin", "aside"), tree: tree, dcfs: bin}
	w.origin, w.aside = w.lab.Host("origin"), w.lab.Host("aside")
	for i := range s.racks {
		w.racks = append(w.racks, w.lab.Rack(fmt.Sprintf("r%d", i)))
	}
	for i := range s.hosts {
		h := w.lab.Add(fmt.Sprintf("h%d", i))
		w.hosts = append(w.hosts, h)
		if s.racks > 0 {
			w.racks[i%s.racks].Put(h)
		}
	}
	w.lab.Acquaint()
	return w
}

// crossed is what went over the racks' links.
func (w *work) crossed() (all []lab.Traffic) {
	for _, r := range w.racks {
		all = append(all, r.Traffic())
	}
	return all
}

// shape limits all links but the one aside; it comes last, so that preparing
// is quick, and returns where the counters stand.
func (w *work) shape() (before []lab.Traffic) {
	rate := fmt.Sprintf("%dmbit", w.mbit)
	for _, h := range w.all() {
		h.Shape(lab.Shape{Up: rate, Down: rate})
		before = append(before, h.Traffic())
	}
	for _, r := range w.racks {
		rate := fmt.Sprintf("%.0fkbit", 1000*w.rackMbit())
		r.Shape(lab.Shape{Up: rate, Down: rate})
	}
	return before
}

// all is the origin and then the hosts.
func (w *work) all() []*lab.Host { return append([]*lab.Host{w.origin}, w.hosts...) }
