// Command simswarm runs the planner and the queue of package trade in virtual time,
// on links that have rates and in racks, to see how swarms behave that no machine
// can hold. The same seed gives the same run.
//
//	simswarm -cases 8x100,24x20,4r4x50     cases as make bench-swarm has them
//	simswarm -lab FILE                     the runs in the output of make bench-swarm beside it
//	simswarm -curve -svg FILE              swarms of 8 to 10,000 hosts
//
// It must never have a planner of its own, and never decide that a figure is good
// or bad: it prints them.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var caseForm = regexp.MustCompile(`^(?:(\d+)r)?(\d+)x(\d+)$`)

// parse reads a case.
func parse(text string) (s setup, err error) {
	m := caseForm.FindStringSubmatch(text)
	if m == nil {
		return s, fmt.Errorf("%q is not like 8x100 or 4r4x50", text)
	}
	s.racks, _ = strconv.Atoi(m[1])
	s.hosts, _ = strconv.Atoi(m[2])
	s.hosts *= max(s.racks, 1)
	s.mbit, _ = strconv.ParseFloat(m[3], 64)
	if s.hosts == 0 || s.mbit == 0 || s.hosts > 1<<20 {
		return s, fmt.Errorf("%q has no hosts, too many, or no rate", text)
	}
	return s, nil
}

func (s setup) String() string {
	if s.racks > 0 {
		return fmt.Sprintf("%dr%dx%.0f", s.racks, s.hosts/s.racks, s.mbit)
	}
	return fmt.Sprintf("%dx%.0f", s.hosts, s.mbit)
}

// outcome is one run.
type outcome struct {
	setup
	last, median float64   // seconds
	copies       float64   // that the origin sent
	cross        []float64 // copies that came into each rack
	events       uint64
	wall         time.Duration
}

func (o outcome) efficiency() float64 { return o.bound().Seconds() / o.last }

// longest is when a run is given up, in virtual time.
const longest = time.Hour

func simulate(s setup) (outcome, error) {
	start := time.Now()
	w := newWorld(s)
	if !w.run(longest) {
		return outcome{}, fmt.Errorf("%s: %d hosts are not done after %s", s, w.left, longest)
	}
	o := outcome{setup: s, copies: float64(w.nodes[0].up.sent) / float64(s.bytes), events: w.events.seq, wall: time.Since(start)}
	var at []float64
	for _, h := range w.nodes[1:] {
		at = append(at, h.done.Seconds())
	}
	slices.Sort(at)
	o.last, o.median = at[len(at)-1], at[len(at)/2]
	for _, n := range w.cross {
		o.cross = append(o.cross, float64(n)/float64(s.bytes))
	}
	return o, nil
}

func (o outcome) row() string {
	cross := "–"
	if len(o.cross) > 0 {
		cross = fmt.Sprintf("%.2f", slices.Max(o.cross))
	}
	return fmt.Sprintf("%-11s%6d%9.2f%8.2f%10.2f%12.3f%12.2f%12s%11d%8.0f", o, o.hosts, o.bound().Seconds(), o.last, o.median,
		o.efficiency(), o.copies, cross, o.events, o.wall.Seconds())
}

const heading = "case        hosts  bound s  last s  median s  efficiency  origin ÷ F  a rack ÷ F     events  took s"

func main() {
	var (
		s      = setup{fit: lab}
		cases  = flag.String("cases", "8x100,24x20,48x10,4r4x50", "hosts x Mbit/s of every link, both ways; 4r4x50: 4 racks of 4 hosts")
		mib    = flag.Float64("mib", 64, "MiB to distribute")
		beside = flag.String("lab", "", "a `FILE` with what make bench-swarm printed: its runs of dcfs, beside the same simulated")
		curve  = flag.Bool("curve", false, "swarms of 8 hosts and twice as many each time, on one switch and in racks")
		most   = flag.Int("most", 10000, "the largest of -curve")
		rack   = flag.Int("rack", 40, "hosts of a rack of -curve")
		mbit   = flag.Float64("mbit", 100, "the links of -curve")
		svg    = flag.String("svg", "", "draw -curve to `FILE`")
	)
	flag.Int64Var(&s.piece, "piece", 64<<10, "length of a piece in bytes")
	flag.IntVar(&s.peers, "peers", 80, "whom a host is connected with at most")
	flag.Float64Var(&s.over, "over", 3, "racks: how much more their hosts' links carry than the rack's own")
	flag.BoolVar(&s.flat, "flat", false, "hosts do not know of racks")
	flag.Uint64Var(&s.seed, "seed", 1, "")
	flag.Parse()
	s.bytes = int64(*mib * (1 << 20))
	var err error
	switch {
	case *beside != "":
		err = compare(os.Stdout, *beside, s)
	case *curve:
		s.mbit = *mbit
		err = draw(os.Stdout, s, *most, *rack, *svg)
	default:
		err = table(os.Stdout, strings.Split(*cases, ","), s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "simswarm:", err)
		os.Exit(1)
	}
}

func table(w io.Writer, cases []string, with setup) error {
	fmt.Fprintln(w, heading)
	for _, text := range cases {
		c, err := parse(text)
		if err != nil {
			return err
		}
		s := with
		s.hosts, s.racks, s.mbit = c.hosts, c.racks, c.mbit
		o, err := simulate(s)
		if err != nil {
			return err
		}
		fmt.Fprintln(w, o.row())
	}
	return nil
}
