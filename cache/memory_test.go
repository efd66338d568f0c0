package cache

import (
	"testing"

	"dcfs/cache/piece"
)

func TestMemoryAfterClose(t *testing.T) {
	r := newRig(t, 8, 4, onDisk)
	r.mem.Close()
	r.mustRead()
	r.mustRead()
	if r.mem.Used() != 0 {
		t.Errorf("a closed memory holds %d bytes", r.mem.Used())
	}
}

// Two stores in one memory do not see each other's pieces.
func TestStoresShareAMemory(t *testing.T) {
	a := newRig(t, 40, 4)
	b := newRig(t, 44, 4, func(c *Config, _ *rig) { c.Memory = a.mem })
	for _, r := range []*rig{a, b} {
		for i := range piece.Index(r.Layout().Count()) {
			r.mustDeliver(i)
		}
		for r.writeNext(t.Context()) {
		}
	}
	a.mem.lru.Wait()
	a.mustRead()
	b.mustRead()
	if hits, _ := a.mem.Counts(); hits == 0 || a.mem.Used() != 84 || a.mem.Budget() != 64<<20 {
		t.Errorf("%d hits, %d bytes used", hits, a.mem.Used())
	}
}

// What leaves the window goes to ristretto or nowhere, and the budget holds.
func TestWindow(t *testing.T) {
	m := newMemory(t, 4096)
	for key := range uint64(200) {
		m.put(key, make([]byte, 64))
		if b, ok := m.get(key); !ok || len(b) != 64 {
			t.Fatalf("piece %d, just put, is not there", key)
		}
	}
	m.lru.Wait()
	if used := m.Used(); used > m.Budget() || used < m.recent.bound {
		t.Errorf("%d bytes are held, the budget is %d", used, m.Budget())
	}
	m.drop(199)
	if _, ok := m.get(199); ok {
		t.Error("what was dropped is there")
	}
	m.put(1000, make([]byte, 4096)) // larger than the window, and than ristretto's part
	m.lru.Wait()
	if used := m.Used(); used > m.Budget() {
		t.Errorf("%d bytes are held, the budget is %d", used, m.Budget())
	}
}

// ristretto takes pieces in through a queue of its own. While nobody works it
// off, puts are refused and not piled up.
func TestPutsDoNotPileUp(t *testing.T) {
	m := newMemory(t, 64<<10)
	var most int64
	for key := range uint64(40_000) { // 40 MB in the time of little
		m.put(key, make([]byte, 1<<10))
		most = max(most, m.Used())
	}
	if limit := m.Budget() + minWindow + m.recent.bound; most > limit {
		t.Errorf("%d bytes were held at one time, %d is the limit", most, limit)
	}
}
