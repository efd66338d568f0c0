package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
)

// series is swarms of growing size.
type series struct {
	name string
	runs []outcome
}

// flatMost is the largest swarm that is simulated on one switch: no switch has
// more ports.
const flatMost = 1024

// draw simulates swarms of 8 hosts and twice as many each time, up to most, on one
// switch and in racks, and prints them; it draws them to a file if one is named.
func draw(w io.Writer, with setup, most, rack int, path string) error {
	all := []*series{{name: "one switch"}, {name: fmt.Sprintf("racks of %d", rack)}}
	for k, one := range all {
		fmt.Fprintln(w, one.name)
		fmt.Fprintln(w, heading+"  lost per doubling")
		for hosts := 8; ; hosts = min(2*hosts, most) {
			s := with
			s.hosts = hosts
			if s.racks = 0; k > 0 {
				s.racks = (hosts + rack - 1) / rack
			}
			if k == 0 && hosts <= flatMost || s.racks > 1 {
				o, err := simulate(s)
				if err != nil {
					return err
				}
				fmt.Fprintf(w, "%s  %17s\n", o.row(), one.lost(o))
				one.runs = append(one.runs, o)
				if err := save(path, all, with); err != nil {
					return err
				}
			}
			if hosts == most {
				break
			}
		}
	}
	return nil
}

// save draws what there is so far: the largest swarms take minutes each.
func save(path string, all []*series, with setup) error {
	if path == "" {
		return nil
	}
	return os.WriteFile(path, []byte(picture(all, with)), 0o644)
}

// lost is how much less efficient a swarm is than the one before, for each
// doubling between them.
func (s *series) lost(o outcome) string {
	if len(s.runs) == 0 {
		return "–"
	}
	before := s.runs[len(s.runs)-1]
	doublings := math.Log2(float64(o.hosts) / float64(before.hosts))
	return fmt.Sprintf("%.3f", (before.efficiency()-o.efficiency())/doublings)
}

const (
	width, height = 640, 360
	margin        = 48
)

// picture draws efficiency over the number of hosts, which doubles from step to
// step.
func picture(all []*series, with setup) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	last := 16
	ticks := make(map[int]bool)
	for _, one := range all {
		for _, o := range one.runs {
			last, ticks[o.hosts] = max(last, o.hosts), true
		}
	}
	x := func(hosts int) float64 {
		return margin + (width-2*margin)*math.Log2(float64(hosts)/8)/math.Log2(float64(last)/8)
	}
	y := func(e float64) float64 { return height - margin - (height-2*margin)*e }
	for e := 0.0; e <= 1; e += 0.2 {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.0f" y2="%.0f" stroke="#ddd"/><text x="%d" y="%.0f" text-anchor="end">%.1f</text>`+"\n",
			margin, width-margin, y(e), y(e), margin-6, y(e)+4, e)
	}
	for _, hosts := range slices.Sorted(maps.Keys(ticks)) {
		fmt.Fprintf(&b, `<text x="%.0f" y="%d" text-anchor="middle">%d</text>`+"\n", x(hosts), height-margin+18, hosts)
	}
	for k, one := range all {
		color := []string{"#1f6f8b", "#c1554d"}[k]
		var points []string
		for _, o := range one.runs {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(o.hosts), y(o.efficiency())))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(o.hosts), y(o.efficiency()), color)
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), color)
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", margin+12, height-margin-34+16*k, color, one.name)
	}
	fmt.Fprintf(&b, `<text x="%d" y="24">Efficiency (bound ÷ time of the last host) by hosts: %.0f MiB, %.0f Mbit/s, simulated</text>`+"\n</svg>\n",
		margin, float64(with.bytes)/(1<<20), with.mbit)
	return b.String()
}
