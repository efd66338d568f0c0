package snapshot

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"

	"dcfs/cache/piece"
	"dcfs/fs/tree"
)

const hashSize = sha1.Size

// hasher is the state of one run. Each worker reads slabs of the stream and
// hashes what it read: its bytes are then still in the processor's cache. A
// piece or file that spans slabs has a chain. The slabs bound what is in flight.
type hasher struct {
	cfg   Config
	slabs piece.Layout // the stream cut into slabs, each a piece or a part of one

	free  chan *slab  // has room for all
	ready chan *chain // chains that wait for a worker; has room for all that can be

	mu        sync.Mutex
	next      piece.Index // slab that is read next
	turn      piece.Index // slab that is taken apart next: that goes in the order of the stream
	turned    *sync.Cond  // turn has changed, or failed
	failed    bool        // there will be no further turns
	openPiece *chain      // of the piece that goes on in the next slab
	openFile  *chain      // of the file that goes on in the next slab

	pieces []byte              // hash i is written by whoever hashes piece i
	sums   [][sha256.Size]byte // sum i is written by whoever hashes the file i
	weak   []uint32            // sum i is written by whoever has the first slab of piece i
}

// slab is a run of the stream while it is used.
type slab struct {
	start int64
	data  []byte
	uses  atomic.Int32
}

func (h *hasher) release(b *slab) {
	if b.uses.Add(-1) == 0 {
		h.free <- b
	}
}

// work is a worker: it serves chains first, because that of a huge file is the
// longest way to the end, and reads slabs until there are none.
func (h *hasher) work(ctx context.Context) error {
	src := newSource(h.cfg)
	defer src.close()
	for more := true; more; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h.drain()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-h.ready:
			c.run()
		case b := <-h.free:
			job, err := h.read(src, b)
			if err != nil {
				return err
			}
			if more = job != nil; more {
				err = job.do()
			} else {
				h.free <- b
			}
			if err != nil {
				return err
			}
		}
	}
	h.drain()
	return nil
}

// drain runs the chains that wait now. Whoever makes a chain wait drains
// later, so none is left behind.
func (h *hasher) drain() {
	for {
		select {
		case c := <-h.ready:
			c.run()
		default:
			return
		}
	}
}

// read fills b with the next slab and says what to do with it; nil when all of
// the stream has been read, or will not be. Workers read at the same time, each
// with a source of its own, because opening many small files takes longer than
// hashing them; then they take their turns.
func (h *hasher) read(src *source, b *slab) (*job, error) {
	i, ok := h.begin()
	if !ok {
		return nil, nil
	}
	if b.data == nil {
		b.data = make([]byte, min(h.slabs.Length, h.slabs.Total))
	}
	b.start, b.data = h.slabs.Offset(i), b.data[:h.slabs.Size(i)]
	err := src.fill(b.data, b.start)
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.turn != i && !h.failed {
		h.turned.Wait()
	}
	if err == nil && !h.failed {
		err = src.settle() // all slabs before this one have been read by now
	}
	h.turned.Broadcast()
	if err != nil || h.failed {
		h.failed = true
		return nil, err
	}
	h.turn++
	return h.split(b), nil
}

// begin gives the caller the next slab to read.
func (h *hasher) begin() (piece.Index, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed || int(h.next) == h.slabs.Count() {
		return 0, false
	}
	h.next++
	return h.next - 1, true
}

// split takes a slab apart. h.mu is held.
func (h *hasher) split(b *slab) *job {
	if h.cfg.Progress != nil {
		h.cfg.Progress(b.start+int64(len(b.data)), h.slabs.Total)
	}
	b.uses.Store(1)
	j := &job{h: h, slab: b}
	h.splitPiece(j)
	h.splitFiles(j)
	return j
}

// splitPiece has the slab's piece hashed: with the slab if it is one, else as
// a part of it.
func (h *hasher) splitPiece(j *job) {
	length := h.cfg.Tree.PieceLength()
	start, end := j.slab.start, j.slab.start+int64(len(j.slab.data))
	out := h.pieces[start/length*hashSize:][:hashSize]
	first, last := start%length == 0, end%length == 0 || end == h.slabs.Total
	if first && last {
		j.piece = out
		return
	}
	if first {
		h.openPiece = &chain{h: h, sum: sha1.New(), out: out}
	}
	h.link(h.openPiece, part{j.slab.data, j.slab, last})
}

// splitFiles has the files in the slab hashed: with it if they lie in it
// whole, else as parts of theirs.
func (h *hasher) splitFiles(j *job) {
	for x := range h.cfg.Tree.Extents(j.slab.start, int64(len(j.slab.data))) {
		if x.File == tree.None {
			continue
		}
		_, size := h.cfg.Tree.Span(x.File)
		data := j.slab.data[x.Start-j.slab.start:][:x.Length]
		if x.Length == size {
			j.files = append(j.files, file{x.File, data})
			continue
		}
		if x.Offset == 0 {
			h.openFile = &chain{h: h, sum: sha256.New(), out: h.sums[x.File][:]}
		}
		h.link(h.openFile, part{data, j.slab, x.Offset+x.Length == size})
	}
}

// link gives a chain a part. At most three parts of a slab have a chain: its
// piece, a file that ends in it and one that starts. So ready always has room.
func (h *hasher) link(c *chain, p part) {
	p.slab.uses.Add(1)
	if c.add(p) {
		h.ready <- c
	}
}

// partsPerSlab is how many parts of a slab can have a chain; see link.
const partsPerSlab = 3

// job is a slab that was read, and what lies in it whole.
type job struct {
	h     *hasher
	slab  *slab
	piece []byte // where the SHA-1 goes; nil when the piece has a chain
	files []file
}

// file is a whole file in a slab.
type file struct {
	id   tree.ID
	data []byte
}

func (j *job) do() error {
	defer j.h.release(j.slab)
	if length := j.h.cfg.Tree.PieceLength(); j.slab.start%length == 0 {
		start := j.slab.data[:min(tree.WeakWindow, len(j.slab.data))]
		j.h.weak[j.slab.start/length] = tree.WeakOf(start).Sum()
	}
	if j.piece != nil {
		sum := sha1.Sum(j.slab.data)
		copy(j.piece, sum[:])
	}
	for _, f := range j.files {
		j.h.sums[f.id] = sha256.Sum256(f.data)
	}
	if j.h.cfg.Sink == nil {
		return nil
	}
	if _, err := j.h.cfg.Sink.WriteAt(j.slab.data, j.slab.start); err != nil {
		return fmt.Errorf("storing the bytes from %d of the payload: %w", j.slab.start, err)
	}
	return nil
}

// chain hashes a piece or a file that spans slabs: its parts one after the
// other, by one worker at a time, while others go on with other things.
type chain struct {
	h   *hasher
	sum hash.Hash
	out []byte // where the sum goes

	mu    sync.Mutex
	queue []part // bounded by the slabs in flight
	busy  bool   // a worker has the chain, or it waits for one
}

// part is what a slab holds of a chain's piece or file.
type part struct {
	data []byte
	slab *slab
	last bool
}

// add queues a part and reports whether the chain needs a worker.
func (c *chain) add(p part) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, p)
	idle := !c.busy
	c.busy = true
	return idle
}

func (c *chain) next() (part, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		c.busy = false
		return part{}, false
	}
	p := c.queue[0]
	c.queue = c.queue[1:]
	return p, true
}

// run hashes parts until none is queued.
func (c *chain) run() {
	for p, ok := c.next(); ok; p, ok = c.next() {
		c.sum.Write(p.data)
		if p.last {
			c.sum.Sum(c.out[:0])
		}
		c.h.release(p.slab)
	}
}
