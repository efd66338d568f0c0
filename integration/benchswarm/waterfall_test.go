package benchswarm

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"dcfs/integration/lab"
)

// waterfall is where the time of a run goes: for each step the first and the
// last host that reached it, in seconds, to half a second.
type waterfall struct {
	Peer, Piece, Half, Most, All, Copy [2]float64 // a peer, a piece, 50 %, 99 %, 100 %, materialised
}

func (w *watch) fall(seconds []float64) *waterfall {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := new(waterfall)
	steps := []struct {
		into *[2]float64
		ok   func(status) bool
	}{
		{&f.Peer, func(s status) bool { return s.Peers > 0 }},
		{&f.Piece, func(s status) bool { return s.BytesHave > 0 }},
		{&f.Half, func(s status) bool { return s.Bytes > 0 && s.BytesHave >= s.Bytes/2 }},
		{&f.Most, func(s status) bool { return s.Bytes > 0 && s.BytesHave >= s.Bytes/100*99 }},
		{&f.All, func(s status) bool { return s.Bytes > 0 && s.BytesHave >= s.Bytes }},
	}
	for _, step := range steps {
		var at []float64
		for _, all := range w.seen {
			if i := slices.IndexFunc(all, func(s sample) bool { return step.ok(s.status) }); i >= 0 {
				at = append(at, all[i].at)
			}
		}
		if len(at) > 0 {
			*step.into = [2]float64{slices.Min(at), slices.Max(at)}
		}
	}
	f.Copy = [2]float64{slices.Min(seconds), slices.Max(seconds)}
	return f
}

func (f *waterfall) print(w io.Writer) {
	fmt.Fprintf(w, "waterfall, first to last host, s: a peer %.1f–%.1f · first piece %.1f–%.1f · half %.1f–%.1f · 99 %% %.1f–%.1f · all %.1f–%.1f · copy %.2f–%.2f\n",
		f.Peer[0], f.Peer[1], f.Piece[0], f.Piece[1], f.Half[0], f.Half[1], f.Most[0], f.Most[1], f.All[0], f.All[1], f.Copy[0], f.Copy[1])
}

// reading is what the counters of all links said at a time, in seconds.
type reading struct {
	at  float64
	all map[string]lab.Traffic
}

// readLinks reads the counters until the watch stops.
func (w *watch) readLinks(l *lab.Lab) {
	for {
		if all, err := l.Traffic(); err == nil {
			w.mu.Lock()
			w.links = append(w.links, reading{time.Since(w.start).Seconds(), all})
			w.mu.Unlock()
		}
		select {
		case <-w.cease:
			return
		case <-time.After(250 * time.Millisecond):
		}
	}
}

const spans = 12

// use is how much of the links was in use, span by span of the run: of the
// origin's up, and of what all hosts have together, up and down. Where it is
// below 1, time is lost.
type use struct {
	Until            [spans]float64 // seconds
	Origin, Up, Down [spans]float64
}

func (w *watch) use(mbit int, end float64) *use {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.links) == 0 {
		return nil
	}
	u := new(use)
	before := w.links[0]
	for k := range spans {
		until := end * float64(k+1) / spans
		next := before
		for _, r := range w.links {
			if r.at <= until && r.at > next.at {
				next = r
			}
		}
		room := float64(mbit) * 1e6 / 8 * (next.at - before.at)
		u.Until[k] = next.at
		if room > 0 {
			for name, now := range next.all {
				was := before.all[name]
				up, down := float64(now.Sent-was.Sent)/room, float64(now.Received-was.Received)/room
				if name == "origin" {
					u.Origin[k] = up
				} else {
					n := float64(len(next.all) - 2) // neither the origin nor the one aside
					u.Up[k], u.Down[k] = u.Up[k]+up/n, u.Down[k]+down/n
				}
			}
		}
		before = next
	}
	return u
}

func (u *use) print(w io.Writer) {
	row := func(name string, of [spans]float64, form string) {
		var b strings.Builder
		for _, v := range of {
			fmt.Fprintf(&b, form, v)
		}
		fmt.Fprintf(w, "%-22s%s\n", name, b.String())
	}
	row("links in use until, s", u.Until, "%6.1f")
	row("  origin, up", u.Origin, "%6.2f")
	row("  hosts, up", u.Up, "%6.2f")
	row("  hosts, down", u.Down, "%6.2f")
}
