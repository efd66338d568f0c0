package cache

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"io"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"dcfs/cache/piece"
)

func TestNewRefuses(t *testing.T) {
	mem := newMemory(t, 1<<20)
	good := Config{
		Layout: piece.Layout{Total: 10, Length: 4}, Memory: mem, Backing: &fakeDisk{},
		Hash: func(piece.Index) (sum [sha1.Size]byte) { return sum },
	}
	for name, spoil := range map[string]func(*Config){
		"no pieces":  func(c *Config) { c.Layout = piece.Layout{} },
		"no memory":  func(c *Config) { c.Memory = nil },
		"no hash":    func(c *Config) { c.Hash = nil },
		"no backing": func(c *Config) { c.Backing = nil },
		"claims":     func(c *Config) { c.Claimed = piece.NewSet(4) },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	if _, err := NewMemory(0); err == nil {
		t.Error("a memory of nothing was made")
	}
}

// A piece goes from absent over arriving to verified, and only then is read.
func TestStates(t *testing.T) {
	r := newRig(t, 10, 4)
	p := make([]byte, 4)
	if err := r.ReadChunk(0, p, 0); !errors.Is(err, ErrAbsent) || r.Have(0) {
		t.Fatalf("absent: %v", err)
	}
	if _, err := r.Verify(0); !errors.Is(err, ErrAbsent) {
		t.Fatalf("an absent piece was verified: %v", err)
	}
	if err := r.WriteChunk(0, r.src[:2], 0); err != nil {
		t.Fatal(err)
	}
	if err := r.ReadChunk(0, p[:2], 0); !errors.Is(err, ErrAbsent) || r.Have(0) || r.Stats().Arriving != 1 {
		t.Fatalf("arriving: %v, %+v", err, r.Stats())
	}
	r.mustDeliver(0, 2)
	if err := r.ReadChunk(0, p, 0); err != nil || !bytes.Equal(p, r.src[:4]) {
		t.Fatalf("verified: %v", err)
	}
	if got, want := r.Stats(), (Stats{Pieces: 2, Bytes: 6, Dirty: 6}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	if !r.Verified().Has(2) || r.Verified().Has(1) {
		t.Error("Verified() names the wrong pieces")
	}
	if isDone(r.Complete()) {
		t.Error("complete too early")
	}
	r.mustDeliver(1)
	if !isDone(r.Complete()) {
		t.Error("not complete")
	}
}

func TestBounds(t *testing.T) {
	r := newRig(t, 10, 4)
	r.mustDeliver(0, 1, 2)
	for _, c := range []struct {
		i   piece.Index
		n   int
		off int64
	}{
		{0, 5, 0}, {0, 1, 4}, {0, 1, -1}, {2, 3, 0}, {3, 0, 0}, {3, 1, 0}, {-1, 1, 0},
		{0, 4, math.MaxInt64}, {0, 4, math.MaxInt64 - 2},
	} {
		if r.ReadChunk(c.i, make([]byte, c.n), c.off) == nil {
			t.Errorf("read %+v was taken", c)
		}
		if r.WriteChunk(c.i, make([]byte, c.n), c.off) == nil {
			t.Errorf("write %+v was taken", c)
		}
	}
	if err := r.Wait(context.Background(), 3); err == nil {
		t.Error("a piece outside of the release was waited for")
	}
}

func TestVerifiedBytes(t *testing.T) {
	r := newRig(t, 10, 4)
	r.mustDeliver(0, 2)
	for _, c := range []struct{ off, n, want int64 }{
		{0, 10, 6}, {0, 4, 4}, {3, 3, 1}, {4, 4, 0}, {7, 2, 1}, {9, 100, 1}, {10, 1, 0},
		{-1, 5, 0}, {0, 0, 0}, {1, math.MaxInt64, 5},
	} {
		if got := r.VerifiedBytes(c.off, c.n); got != c.want {
			t.Errorf("VerifiedBytes(%d, %d) = %d, want %d", c.off, c.n, got, c.want)
		}
	}
}

func TestWrongHashIsNeverReadable(t *testing.T) {
	r := newRig(t, 12, 4)
	bad := []byte("bad!")
	for range 3 { // again and again
		if err := r.WriteChunk(1, bad, 0); err != nil {
			t.Fatal(err)
		}
		if sum, err := r.Verify(1); err != nil || sum != sha1.Sum(bad) {
			t.Fatalf("sum %x, %v", sum, err)
		}
		if err := r.ReadChunk(1, make([]byte, 4), 0); !errors.Is(err, ErrAbsent) || r.Have(1) {
			t.Fatalf("wrong bytes can be read: %v", err)
		}
		r.Drop(1)
	}
	r.mustDeliver(0, 1, 2)
	r.mustRead()
	// A late duplicate changes nothing, and no arrival is left of it.
	if err := r.WriteChunk(1, bad, 0); err != nil {
		t.Fatal(err)
	}
	if sum, err := r.Verify(1); err != nil || sum != r.cfg.Hash(1) || r.Stats().Arriving != 0 {
		t.Fatalf("sum %x, %v, %+v", sum, err, r.Stats())
	}
	r.Drop(1)
	r.mustRead()
}

// Whatever comes in whatever order: what can be read is the source's.
func TestOnlyVerifiedBytesAreReadable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		total, length := rapid.Int64Range(1, 64).Draw(rt, "total"), rapid.Int64Range(1, 16).Draw(rt, "length")
		budget := rapid.SampledFrom([]int64{1, 16, 1 << 20}).Draw(rt, "budget")
		mem, err := NewMemory(budget)
		if err != nil {
			rt.Fatal(err)
		}
		defer mem.Close()
		r := newRig(t, total, length, func(c *Config, _ *rig) { c.Memory = mem })
		l := r.Layout()
		model := make([][]byte, l.Count()) // arriving bytes
		verified := make([]bool, l.Count())
		pick := func(rt *rapid.T) piece.Index {
			return piece.Index(rapid.IntRange(0, l.Count()-1).Draw(rt, "piece"))
		}
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				i := pick(rt)
				off := rapid.Int64Range(0, l.Size(i)-1).Draw(rt, "off")
				b := bytes.Clone(r.bytes(l, i)[off:])
				if rapid.Bool().Draw(rt, "spoil") {
					b[0] ^= 1
				}
				if err := r.WriteChunk(i, b, off); err != nil {
					rt.Fatal(err)
				}
				if model[i] == nil {
					model[i] = make([]byte, l.Size(i))
				}
				copy(model[i][off:], b)
			},
			"verify": func(rt *rapid.T) {
				i := pick(rt)
				sum, err := r.Verify(i)
				switch {
				case verified[i]:
					if err != nil || sum != r.cfg.Hash(i) {
						rt.Fatalf("verified piece: %v", err)
					}
				case model[i] == nil:
					if !errors.Is(err, ErrAbsent) {
						rt.Fatalf("absent piece: %v", err)
					}
				default:
					if err != nil || sum != sha1.Sum(model[i]) {
						rt.Fatalf("arriving piece: %v", err)
					}
					verified[i] = sum == r.cfg.Hash(i)
				}
				model[i] = nil
			},
			"drop":   func(rt *rapid.T) { i := pick(rt); r.Drop(i); model[i] = nil },
			"evict":  func(rt *rapid.T) { mem.drop(r.memKey(pick(rt))) },
			"toDisk": func(*rapid.T) { r.writeNext(context.Background()) },
			"": func(rt *rapid.T) {
				for i := range piece.Index(l.Count()) {
					p := make([]byte, l.Size(i))
					err := r.ReadChunk(i, p, 0)
					if verified[i] != (err == nil) || r.Have(i) != verified[i] {
						rt.Fatalf("piece %d: verified %v, reading says %v", i, verified[i], err)
					}
					if err == nil && !bytes.Equal(p, r.bytes(l, i)) {
						rt.Fatalf("piece %d has wrong bytes", i)
					}
				}
			},
		})
	})
}

func TestCompleteReopensAfterALoss(t *testing.T) {
	r := newRig(t, 12, 4, noMemory)
	r.mustDeliver(0, 1, 2)
	for r.writeNext(t.Context()) {
	}
	first := r.Complete()
	r.disk.set(func(d *fakeDisk) { d.readErr = io.ErrClosedPipe })
	for i := range piece.Index(2) {
		if err := r.ReadChunk(i, make([]byte, 4), 0); !errors.Is(err, ErrAbsent) || !errors.Is(err, ErrDisk) {
			t.Fatalf("a failed read says %v", err)
		}
	}
	if !isDone(first) || isDone(r.Complete()) {
		t.Fatal("a store that lost pieces calls itself complete")
	}
	if got := r.losses(); !slices.Equal(got, []piece.Index{0, 1}) {
		t.Errorf("OnLost was told of %v", got)
	}
	r.disk.set(func(d *fakeDisk) { d.readErr = nil })
	r.mustDeliver(0)
	if isDone(r.Complete()) {
		t.Fatal("complete too early")
	}
	r.mustDeliver(1) // closes the channel a second time, which must be another one
	if !isDone(r.Complete()) {
		t.Fatal("not complete again")
	}
	r.mustRead()
}

// What was hashed changes no more.
func TestArrivalCloses(t *testing.T) {
	a := new(arrival)
	if !a.write([]byte("ab"), 1, 4) {
		t.Error("an open arrival takes no chunk")
	}
	b := a.close()
	if a.write([]byte("xy"), 0, 4) || string(b) != "\x00ab\x00" {
		t.Errorf("a closed arrival took a chunk: %q", b)
	}
}
