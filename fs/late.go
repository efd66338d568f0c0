package fs

import (
	"sync"
	"sync/atomic"
	"time"

	"dcfs/fs/tree"
)

// The kernel asks for a page a second time, alone, when the read ahead that it
// was a part of failed. It does so at once, on behalf of a program that has
// waited for the whole deadline already and must not wait for another. So what
// was refused a moment ago is refused again without a wait, unless it is here
// by now.
const (
	lateFor = 100 * time.Millisecond
	maxLate = 1024 // refusals remembered
)

// late remembers which READs ended at their deadline a moment ago.
type late struct {
	some atomic.Bool // whether there may be any: the only cost of a good READ

	mu   sync.Mutex
	list []refusal // in the order of time
}

type refusal struct {
	file    tree.ID
	off, to int64
	at      time.Time
}

// note remembers a READ that was refused.
func (l *late) note(file tree.ID, off, n int64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prune(now)
	if len(l.list) < maxLate {
		l.list = append(l.list, refusal{file, off, off + n, now})
		l.some.Store(true)
	}
}

// again reports whether a READ is the kernel's second for what was refused.
func (l *late) again(file tree.ID, off, n int64, now time.Time) bool {
	if !l.some.Load() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prune(now)
	for _, r := range l.list {
		if r.file == file && r.off <= off && off+n <= r.to {
			return true
		}
	}
	return false
}

// prune forgets what is too old. l.mu is held.
func (l *late) prune(now time.Time) {
	k := 0
	for k < len(l.list) && now.Sub(l.list[k].at) > lateFor {
		k++
	}
	l.list = append(l.list[:0], l.list[k:]...)
	l.some.Store(len(l.list) > 0)
}
