// Package cache is the piece store of one release on one host: the place where
// the mount, the swarm and the copy on disk meet.
//
// A piece is absent, then arriving while chunks of it come in, then verified.
// Only Verify makes a piece readable, after its SHA-1 matched; a piece that a
// former process left on disk is claimed, and is hashed before its first use.
// A verified piece is pinned in RAM until the disk took it, whatever ristretto
// does. Only while the disk refuses writes and readers wait for other pieces
// does the store give pins up; such a piece is absent again, and is fetched anew.
//
// The package must never talk to a peer, know a file's name, or take a lock of
// the torrent client: it asks a Fetcher for pieces and is told of chunks.
package cache

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"dcfs/cache/piece"
)

// Errors that callers tell apart.
var (
	// ErrAbsent says that a piece is not here (yet, or any more).
	ErrAbsent = errors.New("piece is not here")
	// ErrDisk is wrapped by every failure of the Backing.
	ErrDisk = errors.New("disk")
	// ErrDamaged says that the backing no longer gives what was put there.
	ErrDamaged = errors.New("damaged on disk")
)

// Backing is the release's content on disk, addressed by offsets into the
// payload stream. Reads of what was never written must fail or give bytes that
// fail their hash. Its methods are called concurrently.
type Backing interface {
	io.ReaderAt
	io.WriterAt
	// SaveHave makes all durable that was written before the call, and then
	// durably records the bitfield (BEP 3 order) of these pieces.
	SaveHave(bitfield []byte) error
}

// Fetcher is told which pieces readers want, and how much. Its methods must not
// block on the network.
type Fetcher interface {
	// Want raises the urgency of the pieces of r to at least u.
	Want(r piece.Range, u piece.Urgency)
	// Relax takes back what Want said of the pieces of r.
	Relax(r piece.Range)
	// Explain says whom piece i was asked from and since when, for a message.
	Explain(i piece.Index) string
}

// Config describes a store.
type Config struct {
	Layout  piece.Layout
	Hash    func(piece.Index) [sha1.Size]byte
	Backing Backing
	Memory  *Memory
	// Claimed are the pieces that the backing is said to hold; nil for none.
	Claimed *piece.Set
	// DirtyLimit bounds the bytes that are verified but not yet written to the
	// backing: beyond it Verify admits its piece and then waits; while readers
	// are blocked, only beyond twice as much. 0 means 64 MiB.
	DirtyLimit int64
	// Ahead is how many bytes are wanted at most behind what is read in order.
	Ahead int64
	// OnLost, if set, is called without locks held when a piece that was
	// verified or claimed turns out to be gone, with the reason. Only damage
	// to the backing wraps ErrDamaged.
	OnLost func(piece.Index, error)
	Log    *slog.Logger
}

const (
	defaultDirtyLimit = 64 << 20
	// maxLoads bounds the pieces that are read from the backing at one time.
	maxLoads = 8
)

// Store holds the pieces of one release. It is safe for concurrent use.
type Store struct {
	cfg Config
	key uint64 // this store's share of Memory's keys

	mu       sync.Mutex
	verified *piece.Set // readable
	claimed  *piece.Set // said to be on disk by a former process, not yet hashed
	written  *piece.Set // given to the backing since, or found there intact
	arriving map[piece.Index]*arrival
	loading  map[piece.Index]*loading
	loads    chan struct{}          // slots: each load has a whole piece in RAM that no budget counts
	dirty    map[piece.Index][]byte // verified, pinned until the backing has them
	queue    []piece.Index          // dirty pieces in the order of their coming; the first is being written
	bytes    int64                  // in dirty
	resumed  int64                  // see Stats
	room     *sync.Cond             // Verify may go on: bytes sank, a reader came, the disk refused, or closed
	work     chan struct{}          // queue has grown; one slot
	idle     *sync.Cond             // queue has become empty, or the disk failed, or closed
	waits    map[piece.Index]*wait
	streams  piece.Streams
	fetcher  Fetcher
	disk     disk
	closed   bool

	complete chan struct{} // closed when every piece is verified
}

// wait is what all readers of one missing piece share.
type wait struct {
	done    chan struct{} // closed when the piece is verified
	data    []byte        // the piece, set before done is closed
	readers int
	since   time.Time
}

// New returns a store. Its Run must be running for pieces to reach the disk.
func New(cfg Config) (*Store, error) {
	n := cfg.Layout.Count()
	if n == 0 || cfg.Hash == nil || cfg.Backing == nil || cfg.Memory == nil {
		return nil, errors.New("a piece store needs at least one piece, its hash, a backing and a memory")
	}
	if cfg.Claimed == nil {
		cfg.Claimed = piece.NewSet(n)
	}
	if cfg.Claimed.Cap() != n {
		return nil, fmt.Errorf("claims for %d pieces, and the release has %d", cfg.Claimed.Cap(), n)
	}
	if cfg.DirtyLimit <= 0 {
		cfg.DirtyLimit = defaultDirtyLimit
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		cfg: cfg, key: uint64(cfg.Memory.next.Add(1)) << 32,
		verified: piece.NewSet(n), claimed: cfg.Claimed.Clone(), written: piece.NewSet(n),
		arriving: make(map[piece.Index]*arrival), dirty: make(map[piece.Index][]byte),
		loading: make(map[piece.Index]*loading), loads: make(chan struct{}, maxLoads),
		waits: make(map[piece.Index]*wait), work: make(chan struct{}, 1),
		complete: make(chan struct{}),
	}
	s.disk.init(n)
	s.room, s.idle = sync.NewCond(&s.mu), sync.NewCond(&s.mu)
	return s, nil
}

// Attach names the fetcher that is asked for missing pieces, and asks it at
// once for those that readers wait for already. nil says that it has gone.
func (s *Store) Attach(f Fetcher) {
	s.mu.Lock()
	s.fetcher = f
	s.room.Broadcast()
	var missing []piece.Index
	for i := range s.waits {
		missing = append(missing, i)
	}
	s.mu.Unlock()
	if f == nil {
		return
	}
	for _, i := range missing {
		f.Want(one(i), piece.Demand)
	}
}

// Layout returns how the release is cut into pieces.
func (s *Store) Layout() piece.Layout { return s.cfg.Layout }

// Have reports whether piece i is verified, or claimed: whether peers may be
// told that it is here.
func (s *Store) Have(i piece.Index) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verified.Has(i) || s.claimed.Has(i)
}

// Verified returns the pieces that are readable now.
func (s *Store) Verified() *piece.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verified.Clone()
}

// VerifiedBytes returns how many of the n bytes of the stream from off are
// readable now.
func (s *Store) VerifiedBytes(off, n int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum int64
	n = min(n, s.cfg.Layout.Total-off)
	r := s.cfg.Layout.Cover(off, n)
	for i := r.First; i < r.End; i++ {
		if s.verified.Has(i) {
			start := s.cfg.Layout.Offset(i)
			sum += min(start+s.cfg.Layout.Size(i), off+n) - max(start, off)
		}
	}
	return sum
}

// Complete returns a channel that is closed when every piece is verified. Ask
// again after OnLost: a loss opens a new one.
func (s *Store) Complete() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.complete
}

// Waiting is a piece that readers are blocked on.
type Waiting struct {
	Piece   piece.Index
	Readers int
	Since   time.Time
}

// Waits lists the pieces that readers are blocked on, in no order.
func (s *Store) Waits() []Waiting {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Waiting, 0, len(s.waits))
	for i, w := range s.waits {
		out = append(out, Waiting{Piece: i, Readers: w.readers, Since: w.since})
	}
	return out
}

// Stats are a store's figures at one instant.
type Stats struct {
	Pieces   int   // verified
	Bytes    int64 // verified
	Claimed  int   // on disk by what a former process said, not hashed yet
	Unproven int64 // bytes of these
	Resumed  int64 // bytes that a former process had put on disk (Config.Claimed) and that proved right
	Dirty    int64 // bytes verified and not yet written to the backing
	Arriving int   // pieces of which some chunks are here
}

// Stats returns the store's figures.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Pieces: s.verified.Len(), Bytes: s.bytesOf(s.verified),
		Claimed: s.claimed.Len(), Unproven: s.bytesOf(s.claimed), Resumed: s.resumed,
		Dirty: s.bytes, Arriving: len(s.arriving),
	}
}

// bytesOf is the size of a set of pieces: only the last may be shorter.
func (s *Store) bytesOf(set *piece.Set) int64 {
	l := s.cfg.Layout
	bytes := int64(set.Len()) * l.Length
	if last := piece.Index(l.Count() - 1); set.Has(last) {
		bytes -= l.Length - l.Size(last)
	}
	return bytes
}

// Close makes every blocked Verify and Flush return. Readers end by their own
// contexts. It loses nothing that Flush was waited for.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.room.Broadcast()
	s.idle.Broadcast()
}

func (s *Store) memKey(i piece.Index) uint64 { return s.key | uint64(i) }

func one(i piece.Index) piece.Range { return piece.Range{First: i, End: i + 1} }

// lost takes back a piece that the backing no longer gives, so that it is
// fetched again. A piece that RAM still pins is not lost: it came anew while
// the caller looked at the backing.
func (s *Store) lost(i piece.Index, why error) {
	s.mu.Lock()
	_, pinned := s.dirty[i]
	was := !pinned && s.forget(i)
	s.mu.Unlock()
	if was {
		s.gone(i, fmt.Errorf("%w: %w", ErrDamaged, why))
	}
}

// forget makes piece i absent and reports whether it was not. s.mu is held.
func (s *Store) forget(i piece.Index) bool {
	claimed := s.claimed.Remove(i)
	s.written.Remove(i)
	s.disk.forget(i)
	if !s.verified.Remove(i) {
		return claimed
	}
	select {
	case <-s.complete:
		s.complete = make(chan struct{})
	default:
	}
	return true
}

// gone tells of a piece that was forgotten. No lock is held.
func (s *Store) gone(i piece.Index, why error) {
	s.cfg.Memory.drop(s.memKey(i))
	if s.cfg.OnLost != nil {
		s.cfg.OnLost(i, why)
	}
}
