package retain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// rel is a release that was completed on a day.
func rel(version string, day int) Release {
	return Release{Version: version, Path: "/r/" + version, Completed: epoch.AddDate(0, 0, day)}
}

func used(r Release, by ...string) Release     { r.InUse = by; return r }
func previous(r Release, of ...string) Release { r.Rollback = of; return r }

func TestApply(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []Release
		keep int
		want string // the versions that stay, in the order of the answer
	}{
		{"nothing", nil, 2, ""},
		{"fewer than kept", []Release{rel("1", 1)}, 2, "1"},
		{"as many as kept", []Release{rel("1", 1), rel("2", 2)}, 2, "2 1"},
		{"the oldest go", []Release{rel("1", 1), rel("4", 4), rel("2", 2), rel("3", 3)}, 2, "4 3"},
		{"age counts, not the name", []Release{rel("9", 1), rel("10", 2)}, 1, "10"},
		{"none", []Release{rel("1", 1), rel("2", 2)}, 0, ""},
		{"negative is none", []Release{rel("1", 1)}, -1, ""},
		{"in use stays", []Release{used(rel("1", 1), "a mount"), rel("2", 2), rel("3", 3)}, 1, "3 1"},
		{"in use takes its place when it is new", []Release{rel("1", 1), rel("2", 2), used(rel("3", 3), "x")}, 2, "3 2"},
		{"none but in use", []Release{rel("1", 1), used(rel("2", 2), "x")}, 0, "2"},
		{"the way back before the others", []Release{previous(rel("1", 1), "/l"), rel("2", 2), rel("3", 3)}, 2, "3 1"},
		{"the newest before the way back", []Release{previous(rel("1", 1), "/l"), rel("2", 2)}, 1, "2"},
		{"each app by itself", []Release{rel("web/1", 1), rel("web/2", 5), rel("web/3", 6), rel("db/1", 2)}, 2, "db/1 web/3 web/2"},
		{"one age", []Release{rel("1", 1), rel("2", 1)}, 1, "2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var kept []string
			for _, d := range Apply(tc.in, tc.keep) {
				if d.Keep {
					kept = append(kept, d.Version)
				}
			}
			if got := strings.Join(kept, " "); got != tc.want {
				t.Errorf("kept %q, want %q", got, tc.want)
			}
		})
	}
}

func TestReasons(t *testing.T) {
	got := Apply([]Release{
		used(rel("3", 3), "the symlink /current leads to it"), previous(rel("1", 1), "/current"), rel("2", 2),
	}, 2)
	want := [][]string{
		{"the symlink /current leads to it", "number 1 by age, within --keep 2"},
		{"number 2 by age, outside of --keep 2, and nobody uses it"},
		{"a rollback of /current leads back to it"},
	}
	for i, d := range got {
		if !slices.Equal(d.Reasons, want[i]) {
			t.Errorf("%s: %q, want %q", d.Version, d.Reasons, want[i])
		}
	}
	last := Apply([]Release{rel("2", 2), previous(rel("1", 1), "/l")}, 1)[1]
	if last.Keep || !slices.Contains(last.Reasons, "a rollback of /l will have nowhere to go") {
		t.Errorf("a way back that goes is not told: %+v", last)
	}
}

func releases(t *rapid.T) []Release {
	n := rapid.IntRange(0, 12).Draw(t, "n")
	var all []Release
	for i := range n {
		app := rapid.SampledFrom([]string{"", "a/", "b/", "a/b/"}).Draw(t, "app")
		r := rel(fmt.Sprintf("%s%d", app, i), rapid.IntRange(0, 5).Draw(t, "day"))
		if rapid.IntRange(0, 3).Draw(t, "used") == 0 {
			r.InUse = []string{"somebody"}
		}
		if rapid.IntRange(0, 3).Draw(t, "previous") == 0 {
			r.Rollback = []string{"/link"}
		}
		all = append(all, r)
	}
	return all
}

func TestApplyProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, keep := releases(t), rapid.IntRange(-1, 6).Draw(t, "keep")
		got := Apply(in, keep)
		if len(got) != len(in) {
			t.Fatalf("%d decisions about %d releases", len(got), len(in))
		}
		kept, all, idle := map[string]int{}, map[string]int{}, map[string]int{}
		newest := map[string]time.Time{}
		for _, d := range got {
			if len(d.Reasons) == 0 {
				t.Fatalf("no reason: %+v", d)
			}
			if len(d.InUse) > 0 && !d.Keep {
				t.Fatalf("in use and not kept: %+v", d)
			}
			a := app(d.Release)
			all[a]++
			if d.Keep {
				kept[a]++
				if len(d.InUse) == 0 {
					idle[a]++
				}
			}
			if newest[a].IsZero() {
				newest[a] = d.Completed
				if keep > 0 && !d.Keep {
					t.Fatalf("the newest goes: %+v", d)
				}
			}
			if d.Completed.After(newest[a]) {
				t.Fatalf("the newest does not come first: %+v", got)
			}
		}
		for a, n := range all {
			if kept[a] < min(n, keep) {
				t.Fatalf("app %q: %d kept of %d, want %d at least", a, kept[a], n, min(n, keep))
			}
			if idle[a] > max(keep, 0) {
				t.Fatalf("app %q: %d kept that nobody uses, want %d at most", a, idle[a], keep)
			}
		}
		// The order of the input does not count.
		shuffled := rapid.Permutation(in).Draw(t, "shuffled")
		for i, d := range Apply(shuffled, keep) {
			if d.Path != got[i].Path || d.Keep != got[i].Keep {
				t.Fatalf("another order, another answer: %+v, %+v", d, got[i])
			}
		}
		// Keeping more never removes what stays with less.
		more := map[string]bool{}
		for _, d := range Apply(in, keep+1) {
			more[d.Path] = d.Keep
		}
		for _, d := range got {
			if d.Keep && !more[d.Path] {
				t.Fatalf("stays with --keep %d and goes with %d: %+v", keep, keep+1, d)
			}
		}
	})
}
