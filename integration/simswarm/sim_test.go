package main

import (
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func usual(hosts, racks int, mbit float64, mib int64) setup {
	return setup{hosts: hosts, racks: racks, mbit: mbit, bytes: mib << 20, piece: 64 << 10, peers: 80, over: 3, seed: 1, fit: lab}
}

func must(t *testing.T, s setup) outcome {
	t.Helper()
	o, err := simulate(s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// The simulator agrees with what make bench-swarm printed. When the planner
// changes, testdata/lab.json is measured anew.
func TestAgreesWithLab(t *testing.T) {
	f, err := os.Open("testdata/lab.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := runs(f)
	if err != nil || len(all) < 4 {
		t.Fatalf("%d runs, %v", len(all), err)
	}
	for _, r := range all {
		o, err := r.again(usual(0, 0, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s %s: %.2f s, lab %.2f s; origin %.2f copies, lab %.2f", r.Tool, o, o.last, r.Last, o.copies, r.Copy)
		if d := o.last/r.Last - 1; math.Abs(d) > 0.1 {
			t.Errorf("%s %s takes %.2f s, and %.2f s in the lab", r.Tool, o, o.last, r.Last)
		}
	}
}

// One seed, one run; another one, another.
func TestSameSeedSameRun(t *testing.T) {
	s := usual(16, 4, 50, 8)
	first, second := must(t, s), must(t, s)
	first.wall, second.wall = 0, 0
	if !reflect.DeepEqual(first, second) {
		t.Errorf("%+v, then %+v", first, second)
	}
	s.seed = 2
	if other := must(t, s); other.events == first.events {
		t.Errorf("another seed gives the same %d events", other.events)
	}
}

// Hosts that know a few of the others each and stand in racks get everything, over
// the racks' links little more than once. Those that know of no racks bring it in
// many times and are later.
func TestRacksOfBoundedLists(t *testing.T) {
	s := usual(120, 6, 100, 8)
	s.peers = 40
	near := must(t, s)
	s.flat = true
	flat := must(t, s)
	t.Logf("%.2f s, copies into racks %.2f; without racks %.2f s, %.2f", near.last, near.cross, flat.last, flat.cross)
	if most := slices.Max(near.cross); most > 1.2 {
		t.Errorf("%.2f copies came into a rack", most)
	}
	if slices.Min(flat.cross) < 2 || flat.last < near.last {
		t.Errorf("without racks it takes %.2f s and %.2f copies", flat.last, flat.cross)
	}
}

// A link carries what its rate says, in the order in which it came.
func TestLine(t *testing.T) {
	l := line{rate: 1000}
	if first, last := l.pass(0, 0, 100); first != 0 || last != 100*time.Millisecond {
		t.Errorf("%v, %v", first, last)
	}
	if first, last := l.pass(50*time.Millisecond, 60*time.Millisecond, 100); first != 100*time.Millisecond || last != 200*time.Millisecond {
		t.Errorf("behind another: %v, %v", first, last)
	}
	if first, last := l.pass(time.Second, 2*time.Second, 100); first != time.Second || last != 2*time.Second {
		t.Errorf("from a slower line: %v, %v", first, last)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]setup{"8x100": {hosts: 8, mbit: 100}, "4r4x50": {hosts: 16, racks: 4, mbit: 50}} {
		if got, err := parse(text); err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "8", "8x", "x8", "0x8", "8x0", "8x8x8", "9999999x1"} {
		if _, err := parse(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestPicture(t *testing.T) {
	o := outcome{setup: usual(8, 0, 100, 1), last: 1}
	svg := picture([]*series{{"one", []outcome{o, {setup: usual(16, 0, 100, 1), last: 2}}}}, o.setup)
	if !strings.HasSuffix(svg, "</svg>\n") || strings.Count(svg, "<circle") != 2 || strings.Contains(svg, "NaN") {
		t.Error(svg)
	}
}
