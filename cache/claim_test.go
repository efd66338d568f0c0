package cache

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"dcfs/cache/piece"
)

// TestOffer: only right bytes get through the door, whatever chunks of the same
// piece arrive meanwhile, and they reach the disk like those of peers.
func TestOffer(t *testing.T) {
	r := newRig(t, 1000, 400)
	r.start()
	l := r.Layout()
	for _, c := range []struct {
		i    piece.Index
		data []byte
	}{{0, make([]byte, 399)}, {2, make([]byte, 400)}, {3, nil}, {-1, nil}} {
		if took, err := r.Offer(c.i, c.data); took || err == nil {
			t.Errorf("%d bytes for piece %d: %v, %v", len(c.data), c.i, took, err)
		}
	}
	if took, err := r.Offer(1, make([]byte, 400)); took || err != nil || r.Have(1) {
		t.Errorf("wrong bytes: %v, %v", took, err)
	}
	if err := r.WriteChunk(1, []byte("of a peer, and wrong"), 7); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	p := make([]byte, 400)
	go func() { _, err := r.ReadAt(t.Context(), p, 400); got <- err }()
	if took, err := r.Offer(1, bytes.Clone(r.bytes(l, 1))); !took || err != nil {
		t.Fatalf("right bytes: %v, %v", took, err)
	}
	if err := <-got; err != nil || !bytes.Equal(p, r.bytes(l, 1)) {
		t.Errorf("a reader that waited: %v", err)
	}
	if sum, err := r.Verify(1); err != nil || sum != r.cfg.Hash(1) {
		t.Errorf("the swarm asks: %v", err)
	}
	for _, i := range []piece.Index{0, 2} {
		if took, err := r.Offer(i, bytes.Clone(r.bytes(l, i))); !took || err != nil {
			t.Errorf("piece %d: %v, %v", i, took, err)
		}
	}
	if took, err := r.Offer(0, bytes.Clone(r.bytes(l, 0))); !took || err != nil {
		t.Errorf("a second time: %v, %v", took, err)
	}
	r.mustRead()
	if err := r.Flush(t.Context()); err != nil || !bytes.Equal(r.disk.durable, r.src) {
		t.Errorf("not on disk: %v", err)
	}
}

// TestClaimLater: pieces that somebody put into the backing are served after
// they were hashed; a wrong one is lost and can come from peers.
func TestClaimLater(t *testing.T) {
	r := newRig(t, 1600, 400)
	r.start()
	r.mustDeliver(0)
	copy(r.disk.data[400:1200], r.src[400:])
	r.disk.data[900]++ // piece 2
	set := piece.NewSet(4)
	for i := range piece.Index(3) {
		set.Add(i)
	}
	if fresh := r.Claim(set); fresh.Len() != 2 || fresh.Has(0) || r.Stats().Claimed != 2 {
		t.Errorf("%d are fresh", fresh.Len())
	}
	if again := r.Claim(set); again.Len() != 0 {
		t.Errorf("%d are fresh the second time", again.Len())
	}
	p := make([]byte, 400)
	if err := r.ReadChunk(1, p, 0); err != nil || !bytes.Equal(p, r.src[400:800]) {
		t.Errorf("claimed and right: %v", err)
	}
	if err := r.ReadChunk(2, p, 0); !errors.Is(err, ErrAbsent) {
		t.Errorf("claimed and wrong: %v", err)
	}
	if lost := r.losses(); len(lost) != 1 || lost[0] != 2 {
		t.Errorf("lost %v", lost)
	}
	r.Scrub(context.Background())
	r.mustDeliver(2, 3)
	r.mustRead()
}
