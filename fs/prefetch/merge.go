package prefetch

import (
	"cmp"
	"slices"

	"dcfs/fs/tree"
)

// MaxShared bounds the windows of the trace that one host shares with others,
// 4 GiB of them, and MaxSharedBytes what it is written as.
const (
	MaxShared      = 1 << 15
	MaxSharedBytes = 4 << 20
)

// MaxBytes bounds a trace that comes from elsewhere, in bytes.
const MaxBytes = 32 << 20

// Within returns what t says of files that the tree has, window by window,
// each once, in the order of t, and at most limit of them. It is how a
// stranger's trace becomes one that is safe to keep: sizes are those of the
// tree, and the work is bounded by limit and the length of t, whatever t
// claims. Times do not survive.
func (t *Trace) Within(tr *tree.Tree, limit int) *Trace {
	return fromWindows(tr, t.windows(tr, limit))
}

// windows lists the windows that t touches, each once, in order.
func (t *Trace) windows(tr *tree.Tree, limit int) []window {
	if t == nil {
		return nil
	}
	var out []window
	seen := make(map[window]bool)
	looks := limit + len(t.Entries) // a trace may name one long file again and again
	for _, e := range t.Entries {
		id, ok := tr.Find(e.Path)
		if !ok || tr.Kind(id) != tree.File {
			continue
		}
		_, size := tr.Span(id)
		if e.Off < 0 || e.Off >= size || e.Len <= 0 {
			continue
		}
		last := (e.Off + min(e.Len, size-e.Off) - 1) / Window
		for n := e.Off / Window; n <= last; n++ {
			if looks--; looks < 0 || len(out) == limit {
				return out
			}
			if w := (window{tr.Inode(id), n}); !seen[w] {
				seen[w] = true
				out = append(out, w)
			}
		}
	}
	return out
}

// Merge makes one trace of what the publisher gave, which may be nil, and of
// what hosts recorded: first the publisher's, in its order, then what at least
// half of the hosts read, in the order of its median place in their traces.
// So what a single host does beside the application is left out as soon as
// there are three. The same traces give the same result in whatever order they
// are given.
func Merge(tr *tree.Tree, publisher *Trace, hosts []*Trace) *Trace {
	all := publisher.windows(tr, MaxEntries)
	seen := make(map[window]bool)
	for _, w := range all {
		seen[w] = true
	}
	places := make(map[window][]int) // where each host has it
	for _, h := range hosts {
		for at, w := range h.windows(tr, MaxShared) {
			places[w] = append(places[w], at)
		}
	}
	var common []window
	for w, p := range places {
		slices.Sort(p)
		if 2*len(p) >= len(hosts) && !seen[w] {
			common = append(common, w)
		}
	}
	slices.SortFunc(common, func(a, b window) int {
		pa, pb := places[a], places[b]
		return cmp.Or(cmp.Compare(pa[len(pa)/2], pb[len(pb)/2]), cmp.Compare(a.file, b.file), cmp.Compare(a.n, b.n))
	})
	all = append(all, common...)
	return fromWindows(tr, all[:min(len(all), MaxEntries)])
}

// fromWindows is a trace of windows, those that follow each other joined.
func fromWindows(tr *tree.Tree, all []window) *Trace {
	out := &Trace{}
	for i, w := range all {
		_, size := tr.Span(w.file)
		from := w.n * Window
		n := min(Window, size-from)
		if i > 0 && all[i-1] == (window{w.file, w.n - 1}) {
			out.Entries[len(out.Entries)-1].Len += n
			continue
		}
		out.Entries = append(out.Entries, Entry{Path: tr.Path(w.file), Off: from, Len: n})
	}
	return out
}
