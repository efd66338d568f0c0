package materialise

import (
	"container/list"
	"io"
	"sync"

	"dcfs/fs/tree"
)

// handles keeps descriptors open by entry, the most recently used of them and
// all that are in use. It holds more than bound only while more are in use.
type handles[H io.Closer] struct {
	bound int

	mu   sync.Mutex
	byID map[tree.ID]*handle[H]
	used list.List // of *handle[H], the last used at the front
}

type handle[H io.Closer] struct {
	h    H
	id   tree.ID
	refs int
	at   *list.Element // nil once it has been dropped
}

// get returns the handle of id, which open opens when it is not there. Every
// get needs a put.
func (c *handles[H]) get(id tree.ID, open func() (H, error)) (*handle[H], error) {
	if x := c.find(id); x != nil {
		return x, nil
	}
	h, err := open() // not under the lock: a cold directory may take a disk seek
	if err != nil {
		return nil, err
	}
	if x := c.find(id); x != nil {
		h.Close()
		return x, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	x := &handle[H]{h: h, id: id, refs: 1}
	if c.byID == nil {
		c.byID = make(map[tree.ID]*handle[H])
	}
	if c.byID[id] == nil {
		c.byID[id], x.at = x, c.used.PushFront(x)
		c.shrink()
	} // else somebody was faster: x is closed at its put
	return x, nil
}

func (c *handles[H]) find(id tree.ID) *handle[H] {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.byID[id]
	if x != nil {
		x.refs++
		c.used.MoveToFront(x.at)
	}
	return x
}

// put gives a handle back that get returned.
func (c *handles[H]) put(x *handle[H]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x.refs--
	if x.at == nil && x.refs == 0 {
		x.h.Close()
	}
	c.shrink()
}

// clear forgets all handles. Those in use are closed when they are put back.
func (c *handles[H]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.byID {
		c.drop(x)
	}
}

func (c *handles[H]) shrink() {
	for e := c.used.Back(); e != nil && len(c.byID) > c.bound; {
		x := e.Value.(*handle[H])
		e = e.Prev()
		if x.refs == 0 {
			c.drop(x)
		}
	}
}

func (c *handles[H]) drop(x *handle[H]) {
	delete(c.byID, x.id)
	c.used.Remove(x.at)
	x.at = nil
	if x.refs == 0 {
		x.h.Close()
	}
}
