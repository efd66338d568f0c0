package cache

import (
	"container/list"
	"sync"
)

// window keeps the pieces that were used last, up to a number of bytes. It
// stands before ristretto, which refuses a piece that it has not seen often:
// the many small reads of one piece must not each read it from the disk.
type window struct {
	bound int64

	mu    sync.Mutex
	bytes int64
	byKey map[uint64]*list.Element
	order list.List // of held, the last used at the front
}

type held struct {
	key  uint64
	data []byte
}

func newWindow(bound int64) *window {
	return &window{bound: bound, byKey: make(map[uint64]*list.Element)}
}

func (w *window) get(key uint64) ([]byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.byKey[key]
	if e == nil {
		return nil, false
	}
	w.order.MoveToFront(e)
	return e.Value.(held).data, true
}

// put takes a piece in and returns those that have to go for it; that is the
// piece itself when it is too large.
func (w *window) put(key uint64, data []byte) (out []held) {
	if int64(len(data)) > w.bound {
		return []held{{key, data}}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.byKey[key]; e != nil { // a piece's bytes are always the same
		w.order.MoveToFront(e)
		return nil
	}
	w.byKey[key] = w.order.PushFront(held{key, data})
	w.bytes += int64(len(data))
	for w.bytes > w.bound {
		out = append(out, w.remove(w.order.Back()))
	}
	return out
}

func (w *window) drop(key uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.byKey[key]; e != nil {
		w.remove(e)
	}
}

// remove takes an element out. w.mu is held.
func (w *window) remove(e *list.Element) held {
	h := w.order.Remove(e).(held)
	delete(w.byKey, h.key)
	w.bytes -= int64(len(h.data))
	return h
}

func (w *window) used() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes
}

func (w *window) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.order.Init()
	clear(w.byKey)
	w.bytes = 0
}
