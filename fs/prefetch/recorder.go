package prefetch

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dcfs/fs/tree"
)

const (
	maxAccess = 64 << 20 // bytes noted of one access; bounds the work of Add
	maxOffset = 1 << 53  // no file of a release is longer
)

// Recorder collects a trace while a release is read. It is safe for concurrent
// use and keeps at most MaxEntries entries; what comes later is not recorded.
type Recorder struct {
	tree    *tree.Tree
	release string
	start   time.Time
	full    atomic.Bool

	mu   sync.Mutex
	seen map[window]struct{}
	log  []access
}

// window is a run of Window bytes of an inode.
type window struct {
	file tree.ID
	n    int64
}

type access struct {
	file   tree.ID
	off, n int64
	at     time.Duration
}

// NewRecorder returns a recorder of reads of the named release, whose tree is
// t. Its clock starts now.
func NewRecorder(t *tree.Tree, release string) *Recorder {
	return &Recorder{tree: t, release: release, start: time.Now(), seen: make(map[window]struct{})}
}

// Add notes that n bytes at off of a file were asked for. It costs a map
// lookup per window under one short lock; once the recorder is full it costs
// nothing. What is no file of the tree is passed over.
func (r *Recorder) Add(file tree.ID, off, n int64) {
	if r.full.Load() || off < 0 || off > maxOffset || n <= 0 || !r.tree.Has(file) {
		return
	}
	file = r.tree.Inode(file)
	n = min(n, maxAccess)
	at := time.Since(r.start).Truncate(time.Millisecond)
	last := (off + n - 1) / Window
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := off / Window; w <= last && len(r.seen) < MaxEntries; w++ {
		key := window{file, w}
		if _, old := r.seen[key]; old {
			continue
		}
		r.seen[key] = struct{}{}
		from := max(off, w*Window)
		to := min(off+n, (w+1)*Window)
		r.append(access{file, from, to - from, at})
	}
	if len(r.seen) >= MaxEntries {
		r.full.Store(true)
	}
}

// append adds an access, joined with the one before when it continues it.
func (r *Recorder) append(a access) {
	if k := len(r.log) - 1; k >= 0 {
		if p := &r.log[k]; p.file == a.file && p.at == a.at && p.off+p.n == a.off {
			p.n += a.n
			return
		}
	}
	r.log = append(r.log, a)
}

// Full reports whether the recorder takes nothing more, so that the trace may
// lack later accesses.
func (r *Recorder) Full() bool { return r.full.Load() }

// Trace returns what was recorded up to now.
func (r *Recorder) Trace() *Trace {
	r.mu.Lock()
	log := slices.Clone(r.log) // Add changes the last one
	r.mu.Unlock()
	out := &Trace{Release: r.release, Entries: make([]Entry, len(log))}
	for i, a := range log {
		out.Entries[i] = Entry{Path: r.tree.Path(a.file), Off: a.off, Len: a.n, At: a.at}
	}
	return out
}

// Len returns how many windows were recorded up to now.
func (r *Recorder) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}
