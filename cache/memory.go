package cache

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

// Memory holds verified pieces of one or more stores in RAM, up to a budget.
// It may refuse or drop any piece at any time, so it is never the only holder
// of one. It is safe for concurrent use.
type Memory struct {
	open   sync.RWMutex // held for writing by Close: ristretto panics when used meanwhile
	lru    *ristretto.Cache[uint64, []byte]
	budget int64
	used   atomic.Int64
	hits   atomic.Int64
	misses atomic.Int64
	next   atomic.Uint32 // the store numbers handed out
}

// assumedPiece is the piece size that ristretto's frequency counters are sized
// for; other sizes work, with coarser counting.
const assumedPiece = 256 << 10

// NewMemory returns a memory of budget bytes, which must be positive.
func NewMemory(budget int64) (*Memory, error) {
	if budget <= 0 {
		return nil, fmt.Errorf("a cache of %d bytes: want more than none", budget)
	}
	m := &Memory{budget: budget}
	lru, err := ristretto.NewCache(&ristretto.Config[uint64, []byte]{
		NumCounters:        max(1<<10, 10*budget/assumedPiece),
		MaxCost:            budget,
		BufferItems:        64,
		IgnoreInternalCost: true,
		OnExit:             func(b []byte) { m.used.Add(-int64(len(b))) },
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
func (m *Memory) Used() int64 { return m.used.Load() }

// Counts returns how many lookups found their piece, and how many did not.
func (m *Memory) Counts() (hits, misses int64) { return m.hits.Load(), m.misses.Load() }

// Close frees the memory. Stores that still use it find nothing and keep
// nothing.
func (m *Memory) Close() {
	m.open.Lock()
	defer m.open.Unlock()
	m.lru.Close()
}

func (m *Memory) get(key uint64) ([]byte, bool) {
	m.open.RLock()
	b, ok := m.lru.Get(key)
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
	m.used.Add(int64(len(b)))
	if !m.lru.Set(key, b, int64(len(b))) {
		m.used.Add(-int64(len(b)))
	}
}

func (m *Memory) drop(key uint64) {
	m.open.RLock()
	defer m.open.RUnlock()
	m.lru.Del(key)
}
