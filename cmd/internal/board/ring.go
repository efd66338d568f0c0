package board

import (
	"slices"
	"sync"
	"time"
)

// together is how long the same thing on further hosts is still one event.
const together = 5 * time.Second

// events are the last things that happened: the routine and the trouble each
// have a ring of their own, so that a fleet that comes and goes does not wash
// away what went wrong.
type events struct {
	mu      sync.Mutex
	routine []Event // oldest first
	trouble []Event
}

func (e *events) add(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ring := &e.routine
	if ev.Bad {
		ring = &e.trouble
	}
	for i := len(*ring) - 1; i >= 0; i-- {
		old := &(*ring)[i]
		if ev.Time.Sub(old.Time) > together {
			break
		}
		if old.Kind == ev.Kind && old.Version == ev.Version && ev.Host != "" {
			old.More++
			return
		}
	}
	if len(*ring) == MaxEvents {
		*ring = slices.Delete(*ring, 0, 1)
	}
	*ring = append(*ring, ev)
}

// newest lists all, newest first.
func (e *events) newest() []Event {
	e.mu.Lock()
	out := slices.Concat(e.routine, e.trouble)
	e.mu.Unlock()
	slices.Reverse(out)
	slices.SortStableFunc(out, func(a, b Event) int { return b.Time.Compare(a.Time) })
	return out
}
