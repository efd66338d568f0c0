package fs

import (
	"sync/atomic"

	"dcfs/fs/tree"
)

// holds counts what the kernel holds: each lookup that found an entry adds
// one, each FORGET takes some back. The root is held without a lookup and is
// not counted. Safe for concurrent use.
type holds struct {
	total atomic.Int64
	each  []atomic.Int32 // by inode
	none  chan struct{}  // a token when total came to zero
}

func newHolds(n int) *holds {
	return &holds{each: make([]atomic.Int32, n), none: make(chan struct{}, 1)}
}

func (h *holds) add(id tree.ID) {
	h.each[id].Add(1)
	h.total.Add(1)
}

func (h *holds) drop(id tree.ID, n int64) {
	h.each[id].Add(int32(-n))
	if h.total.Add(-n) == 0 {
		select {
		case h.none <- struct{}{}:
		default:
		}
	}
}

// held returns the node IDs of what the kernel holds, children before parents,
// because a directory goes only when nothing below it is left.
func (h *holds) held() []uint64 {
	var ids []uint64
	for i := len(h.each) - 1; i > 0; i-- {
		if h.each[i].Load() > 0 {
			ids = append(ids, uint64(i)+1)
		}
	}
	return ids
}
