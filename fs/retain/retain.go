// Package retain decides which releases on a host stay and which may go. It is
// a pure function of what is known of them, so that every decision can be
// printed with its reasons, and tested.
//
// It must never do I/O, nor let a release go that somebody uses: what is in use
// stays, whatever number is asked for.
package retain

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"time"
)

// Release is a complete release in a directory of this host.
type Release struct {
	Version   string // [app/]version: releases of one app are counted together
	Path      string // where it stands; tells releases of one age apart
	Completed time.Time
	InUse     []string // by whom or what, one phrase each; empty: nobody
	Rollback  []string // the links whose previous target it is
}

// Decision is what becomes of a release, and why. There is always a reason.
type Decision struct {
	Release
	Keep    bool
	Reasons []string
}

// Apply decides about releases, keep of each app at least; a negative keep
// counts as none. The decisions come sorted by app, the newest first.
//
// What is in use stays. Of the rest, and counted with it, keep releases of each
// app stay: the newest, then those that a rollback would lead to, then by age.
func Apply(releases []Release, keep int) []Decision {
	sorted := slices.SortedFunc(slices.Values(releases), order)
	out := make([]Decision, 0, len(sorted))
	for len(sorted) > 0 {
		n := 1
		for n < len(sorted) && app(sorted[n]) == app(sorted[0]) {
			n++
		}
		out = append(out, applyApp(sorted[:n], keep)...)
		sorted = sorted[n:]
	}
	return out
}

// app is the part of the version that names the application; "." for none.
func app(r Release) string { return path.Dir(r.Version) }

// order is by app, then the newest first. Path makes it total.
func order(a, b Release) int {
	return cmp.Or(
		cmp.Compare(app(a), app(b)),
		b.Completed.Compare(a.Completed),
		cmp.Compare(b.Version, a.Version),
		cmp.Compare(b.Path, a.Path),
	)
}

// applyApp decides about the releases of one app, the newest first.
func applyApp(releases []Release, keep int) []Decision {
	places := placed(releases, keep)
	out := make([]Decision, len(releases))
	for i, r := range releases {
		d := Decision{Release: r, Keep: len(r.InUse) > 0 || places[i]}
		d.Reasons = append(d.Reasons, r.InUse...)
		if places[i] {
			d.Reasons = append(d.Reasons, placeReasons(r, i, keep)...)
		}
		if !d.Keep {
			d.Reasons = append(d.Reasons, fmt.Sprintf("number %d by age, outside of --keep %d, and nobody uses it", i+1, max(keep, 0)))
			for _, link := range r.Rollback {
				d.Reasons = append(d.Reasons, "a rollback of "+link+" will have nowhere to go")
			}
		}
		out[i] = d
	}
	return out
}

// placed says which of an app's releases have one of the keep places.
func placed(releases []Release, keep int) map[int]bool {
	places := make(map[int]bool)
	take := func(i int) {
		if len(places) < keep {
			places[i] = true
		}
	}
	take(0)
	for i, r := range releases {
		if len(r.Rollback) > 0 {
			take(i)
		}
	}
	for i := range releases {
		take(i)
	}
	return places
}

func placeReasons(r Release, i, keep int) (why []string) {
	for _, link := range r.Rollback {
		why = append(why, "a rollback of "+link+" leads back to it")
	}
	if i < keep {
		why = append(why, fmt.Sprintf("number %d by age, within --keep %d", i+1, keep))
	}
	return why
}
