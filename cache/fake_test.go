package cache

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"dcfs/cache/piece"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeDisk is a Backing in memory. It behaves as a kernel does: what is written
// can be read at once, but is durable only after a record that succeeds; after
// one that fails, the pages written before it are taken for clean.
type fakeDisk struct {
	t      testing.TB
	layout piece.Layout
	hash   func(piece.Index) [sha1.Size]byte

	mu       sync.Mutex
	data     []byte
	durable  []byte
	dirty    []piece.Range // written since the last record; ranges of bytes
	have     []byte        // the last record
	saves    int
	writeErr error
	readErr  error
	saveErr  error
	hold     chan struct{} // all calls wait until it is closed, if not nil

	reads  atomic.Int64
	saving atomic.Int32
}

func (d *fakeDisk) ReadAt(p []byte, off int64) (int, error) {
	d.reads.Add(1)
	d.wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.readErr != nil {
		return 0, d.readErr
	}
	return copy(p, d.data[off:]), nil
}

func (d *fakeDisk) WriteAt(p []byte, off int64) (int, error) {
	d.wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writeErr != nil {
		return 0, d.writeErr
	}
	d.dirty = append(d.dirty, piece.Range{First: piece.Index(off), End: piece.Index(off) + piece.Index(len(p))})
	return copy(d.data[off:], p), nil
}

func (d *fakeDisk) wait() {
	d.mu.Lock()
	hold := d.hold
	d.mu.Unlock()
	if hold != nil {
		<-hold
	}
}

func (d *fakeDisk) SaveHave(bitfield []byte) error {
	if d.saving.Add(1) != 1 {
		d.t.Error("two records are made at the same time")
	}
	defer d.saving.Add(-1)
	d.wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	dirty := d.dirty
	d.dirty = nil
	if d.saveErr != nil {
		return d.saveErr
	}
	for _, r := range dirty {
		copy(d.durable[r.First:r.End], d.data[r.First:r.End])
	}
	set, ok := piece.SetFromBytes(bitfield, d.layout.Count())
	if !ok {
		d.t.Errorf("the record %x is no bitfield of %d pieces", bitfield, d.layout.Count())
		return nil
	}
	for i := range set.All() {
		start := d.layout.Offset(i)
		if sha1.Sum(d.durable[start:start+d.layout.Size(i)]) != d.hash(i) {
			d.t.Errorf("the record names piece %d, which is not durable", i)
		}
	}
	d.have, d.saves = bytes.Clone(bitfield), d.saves+1
	return nil
}

// set changes the faults.
func (d *fakeDisk) set(f func(*fakeDisk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

// fakeFetcher remembers how much each piece is wanted.
type fakeFetcher struct {
	mu      sync.Mutex
	level   map[piece.Index]piece.Urgency
	onRelax func() // called before a Relax takes effect
}

func (f *fakeFetcher) Want(r piece.Range, u piece.Urgency) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.level == nil {
		f.level = make(map[piece.Index]piece.Urgency)
	}
	for i := r.First; i < r.End; i++ {
		f.level[i] = max(f.level[i], u)
	}
}

func (f *fakeFetcher) Relax(r piece.Range) {
	if f.onRelax != nil {
		f.onRelax()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := r.First; i < r.End; i++ {
		delete(f.level, i)
	}
}

func (f *fakeFetcher) Explain(i piece.Index) string { return fmt.Sprintf("somebody for %d", i) }

func (f *fakeFetcher) urgency(i piece.Index) piece.Urgency {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.level[i]
}

// rig is a store over a fake disk, with the bytes that it shall come to hold.
type rig struct {
	*Store
	t     testing.TB
	disk  *fakeDisk
	mem   *Memory
	fetch *fakeFetcher
	src   []byte
	lost  struct {
		sync.Mutex
		pieces []piece.Index
	}
}

// newRig makes a store for total random bytes in pieces of length bytes, with
// room for all in memory. Options change the configuration before it is made.
func newRig(t testing.TB, total, length int64, options ...func(*Config, *rig)) *rig {
	t.Helper()
	r := &rig{t: t, fetch: &fakeFetcher{}, src: make([]byte, total)}
	rng := rand.NewChaCha8([32]byte{byte(total), byte(length)})
	_, _ = rng.Read(r.src)
	l := piece.Layout{Total: total, Length: length}
	sums := make([][sha1.Size]byte, l.Count())
	for i := range sums {
		sums[i] = sha1.Sum(r.bytes(l, piece.Index(i)))
	}
	hash := func(i piece.Index) [sha1.Size]byte { return sums[i] }
	r.disk = &fakeDisk{t: t, layout: l, hash: hash, data: make([]byte, total), durable: make([]byte, total)}
	cfg := Config{Layout: l, Hash: hash, Backing: r.disk, OnLost: r.onLost}
	for _, o := range options {
		o(&cfg, r)
	}
	if cfg.Memory == nil {
		cfg.Memory = newMemory(t, 64<<20)
	}
	r.mem = cfg.Memory
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Attach(r.fetch)
	r.Store = s
	return r
}

func newMemory(t testing.TB, budget int64) *Memory {
	t.Helper()
	m, err := NewMemory(budget)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// noMemory makes ristretto refuse every piece.
func noMemory(c *Config, r *rig) { c.Memory = newMemory(r.t, 1) }

func dirtyLimit(n int64) func(*Config, *rig) {
	return func(c *Config, _ *rig) { c.DirtyLimit = n }
}

// onDisk puts all the bytes on the disk and claims them.
func onDisk(c *Config, r *rig) {
	copy(r.disk.data, r.src)
	copy(r.disk.durable, r.src)
	c.Claimed = piece.NewSet(c.Layout.Count())
	for i := range piece.Index(c.Layout.Count()) {
		c.Claimed.Add(i)
	}
}

func (r *rig) onLost(i piece.Index, _ error) {
	r.lost.Lock()
	defer r.lost.Unlock()
	r.lost.pieces = append(r.lost.pieces, i)
}

func (r *rig) losses() []piece.Index {
	r.lost.Lock()
	defer r.lost.Unlock()
	return append([]piece.Index(nil), r.lost.pieces...)
}

func (r *rig) bytes(l piece.Layout, i piece.Index) []byte {
	return r.src[l.Offset(i) : l.Offset(i)+l.Size(i)]
}

// start runs the store's writer until the test ends.
func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Run(ctx) }()
	r.t.Cleanup(func() { cancel(); <-done })
}

// deliver brings piece i as a swarm does, and reports whether it was right.
func (r *rig) deliver(i piece.Index) error {
	b := r.bytes(r.Layout(), i)
	half := len(b) / 2
	if err := errors.Join(r.WriteChunk(i, b[half:], int64(half)), r.WriteChunk(i, b[:half], 0)); err != nil {
		return err
	}
	sum, err := r.Verify(i)
	if err == nil && sum != r.cfg.Hash(i) {
		err = fmt.Errorf("piece %d: the sum is wrong", i)
	}
	return err
}

func (r *rig) mustDeliver(pieces ...piece.Index) {
	r.t.Helper()
	for _, i := range pieces {
		if err := r.deliver(i); err != nil {
			r.t.Fatal(err)
		}
	}
}

// mustRead reads the whole stream and compares it with the source.
func (r *rig) mustRead() {
	r.t.Helper()
	got := make([]byte, len(r.src))
	if _, err := r.ReadAt(context.Background(), got, 0); err != nil || !bytes.Equal(got, r.src) {
		r.t.Fatalf("the stream differs or cannot be read: %v", err)
	}
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
