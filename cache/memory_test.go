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
