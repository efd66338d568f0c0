package cache

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

// Memory holds verified pieces of one or more stores in RAM, up to a budget:
// a window of those that were used last, and behind it ristretto, which keeps
// what is used often. It may refuse or drop any piece at any time, so it is
// never the only holder of one. It is safe for concurrent use.
type Memory struct {
	open   sync.RWMutex // held for writing by Close: ristretto panics when used meanwhile
	recent *window
	lru    *ristretto.Cache[uint64, []byte]
	budget int64
	behind atomic.Int64 // bytes that ristretto holds or was given
	closed bool         // guarded by open
	hits   atomic.Int64
	misses atomic.Int64
	next   atomic.Uint32 // the store numbers handed out
}

// assumedPiece is the piece size that ristretto's frequency counters are sized
// for; other sizes work, with coarser counting.
const assumedPiece = 256 << 10

// minWindow is what the window of recent pieces gets even of a small budget,
// but never more than half of it: a large piece has to fit.
const minWindow = 8 << 20

// NewMemory returns a memory of budget bytes, which must be positive.
func NewMemory(budget int64) (*Memory, error) {
	if budget <= 0 {
		return nil, fmt.Errorf("a cache of %d bytes: want more than none", budget)
	}
	m := &Memory{budget: budget, recent: newWindow(max(budget/4, min(budget/2, minWindow)))}
	lru, err := ristretto.NewCache(&ristretto.Config[uint64, []byte]{
		NumCounters:        max(1<<10, 10*budget/assumedPiece),
		MaxCost:            budget - m.recent.bound,
		BufferItems:        64,
		IgnoreInternalCost: true,
		OnExit:             func(b []byte) { m.behind.Add(-int64(len(b))) },
	})
	if err != nil {
		return nil, fmt.Errorf("the piece cache: %w", err)
	}
	m.lru = lru
	return m, nil
}

// Budget returns the limit in bytes; Used what is held or being taken in.
func (m *Memory) Budget() int64 { return m.budget }

// Used returns the bytes that the memory holds now.
func (m *Memory) Used() int64 { return m.behind.Load() + m.recent.used() }

// Counts returns how many lookups found their piece, and how many did not.
func (m *Memory) Counts() (hits, misses int64) { return m.hits.Load(), m.misses.Load() }

// Close frees the memory. Stores that still use it find nothing and keep
// nothing.
func (m *Memory) Close() {
	m.open.Lock()
	defer m.open.Unlock()
	m.lru.Close()
	m.recent.clear()
	m.closed = true
}

func (m *Memory) get(key uint64) ([]byte, bool) {
	m.open.RLock()
	b, ok := m.recent.get(key)
	if !ok {
		b, ok = m.lru.Get(key)
	}
	m.open.RUnlock()
	if ok {
		m.hits.Add(1)
	} else {
		m.misses.Add(1)
	}
	return b, ok
}

// put offers a piece, which must not change any more. It may be refused.
func (m *Memory) put(key uint64, b []byte) {
	m.open.RLock()
	defer m.open.RUnlock()
	if m.closed {
		return
	}
	for _, h := range m.recent.put(key, b) {
		m.pass(h)
	}
}

// pass offers ristretto what leaves the window. It takes pieces in by a
// goroutine of its own, from a queue of thousands: what waits there counts, or
// nothing would bound it. m.open is held.
func (m *Memory) pass(h held) {
	n := int64(len(h.data))
	if m.behind.Add(n) > m.budget+minWindow || !m.lru.Set(h.key, h.data, n) {
		m.behind.Add(-n)
	}
}

func (m *Memory) drop(key uint64) {
	m.open.RLock()
	defer m.open.RUnlock()
	m.recent.drop(key)
	m.lru.Del(key)
}
