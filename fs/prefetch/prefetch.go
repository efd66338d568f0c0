// Package prefetch knows in which order a release is filled in the background.
// A trace records what an application reads first; publish lays those files
// out first (Trace.Hot), and a host fetches their pieces first (Plan).
//
// Planning is pure: same input, same plan. The package must never do I/O but
// on the readers and writers it is given, never believe a trace's sizes or
// paths, and never let a recording grow without a bound.
package prefetch

import (
	"errors"
	"time"

	"dcfs/cache/piece"
	"dcfs/fs/tree"
)

// Window is the grain of a recording in bytes: of each window of a file only
// the first access is kept. It is the smallest read-ahead of Linux.
const Window = 128 << 10

// MaxEntries bounds the entries of a trace, recorded or read. It covers 32 GiB
// of distinct windows, far more than the start of an application touches.
const MaxEntries = 1 << 18

// ErrTrace is wrapped by every error about a trace that cannot be used.
var ErrTrace = errors.New("bad trace")

// Entry is the first access to a run of a file.
type Entry struct {
	Path string        // slash-separated from the release's root, raw bytes
	Off  int64         // bytes from the start of the file
	Len  int64         // bytes, above 0
	At   time.Duration // since the recording began, whole milliseconds
}

// Trace is a recording of first accesses in their order.
type Trace struct {
	Release string // the name of the release it was recorded on; may be empty
	Entries []Entry
}

// Hot returns the paths of the trace in the order of their first access, each
// once, as tree.Plan takes them.
func (t *Trace) Hot() []string {
	if t == nil {
		return nil
	}
	var hot []string
	seen := make(map[string]bool)
	for _, e := range t.Entries {
		if !seen[e.Path] {
			seen[e.Path] = true
			hot = append(hot, e.Path)
		}
	}
	return hot
}

// Plan returns every piece of the layout once, in the order in which to fill
// them: those of the trace in its order, then the others in the order of the
// stream. The first traced of them come from the trace. Entries that the tree
// has no content for are passed over, so a trace of another release does no
// harm; nil is no trace.
func Plan(t *tree.Tree, layout piece.Layout, trace *Trace) (order []piece.Index, traced int) {
	n := piece.Index(layout.Count())
	order = make([]piece.Index, 0, n)
	free := newFreeList(n)
	take := func(r piece.Range) {
		for i := free.from(r.First); i < r.End; i = free.from(i) {
			order = append(order, i)
			free.drop(i)
		}
	}
	for r := range trace.ranges(t, layout) {
		take(r)
	}
	traced = len(order)
	take(piece.Range{First: 0, End: n})
	return order, traced
}

// freeList finds the next piece that is not planned yet in nearly constant
// time: a hostile trace may name the whole stream in each of its entries.
// next[i] is i for a free piece, and else a later candidate.
type freeList struct{ next []piece.Index }

func newFreeList(n piece.Index) freeList {
	f := freeList{make([]piece.Index, n+1)}
	for i := range f.next {
		f.next[i] = piece.Index(i)
	}
	return f
}

// from returns the first free piece at or behind i, or one past the last.
func (f freeList) from(i piece.Index) piece.Index {
	for f.next[i] != i {
		f.next[i] = f.next[f.next[i]] // shorten the way for the next search
		i = f.next[i]
	}
	return i
}

func (f freeList) drop(i piece.Index) { f.next[i] = i + 1 }

// ranges yields the pieces that each entry of the trace touches.
func (t *Trace) ranges(tr *tree.Tree, layout piece.Layout) func(yield func(piece.Range) bool) {
	return func(yield func(piece.Range) bool) {
		if t == nil {
			return
		}
		for _, e := range t.Entries {
			id, ok := tr.Find(e.Path)
			if !ok {
				continue
			}
			start, size := tr.Span(id)
			if e.Off < 0 || e.Off >= size {
				continue
			}
			if !yield(layout.Cover(start+e.Off, min(e.Len, size-e.Off))) {
				return
			}
		}
	}
}
