package cache

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"dcfs/cache/piece"
)

// ReadAt reads verified bytes of the payload stream. It waits for pieces that
// are not here, asking the fetcher for them as piece.Demand, until ctx ends;
// then the error wraps the context's cause and names the piece. It returns
// io.EOF at the end of the stream and is never short before it without an error.
func (s *Store) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	l := s.cfg.Layout
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= l.Total {
		return 0, io.EOF
	}
	want := p
	if int64(len(p)) > l.Total-off {
		want = p[:l.Total-off]
	}
	r := l.Cover(off, int64(len(want)))
	s.demand(r, off, int64(len(want)))
	n := 0
	for n < len(want) {
		i := l.At(off + int64(n))
		in := off + int64(n) - l.Offset(i)
		part := want[n:min(int64(len(want)), int64(n)+l.Size(i)-in)]
		if err := s.readPiece(ctx, i, part, in); err != nil {
			s.relax(piece.Range{First: i, End: r.End})
			return n, err
		}
		n += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// demand asks for all missing pieces of r, which a read of n bytes from off
// needs, at once, so that it waits for them side by side; and for what lies
// behind them as far as reads have come in order until now, whether it misses
// something or not. A scan of small files goes through the stream in order, and
// the kernel, which sees a new file each time, never reads ahead for it.
func (s *Store) demand(r piece.Range, off, n int64) {
	s.mu.Lock()
	f := s.fetcher
	missing := s.absent(r)
	ahead, urgency := s.ahead(s.streams.Read(off, n))
	behind := s.absent(piece.Range{First: r.End, End: s.cfg.Layout.Cover(off, n+ahead).End})
	s.mu.Unlock()
	if f == nil {
		return
	}
	if missing.Len() > 0 {
		f.Want(missing, piece.Demand)
	}
	if behind.Len() > 0 {
		f.Want(behind, urgency)
	}
}

// soonAhead is how many bytes are wanted behind reads that have just begun to go
// on in order.
const soonAhead = 4 << 20

// ahead is how many bytes are wanted behind a read, and how much, when reads
// have gone on in order for so many bytes: nothing behind one that stands alone,
// since what is fetched in vain delays what others wait for, and more behind
// those that are likely to go on for long.
func (s *Store) ahead(run int64) (int64, piece.Urgency) {
	l := s.cfg.Layout.Length
	switch {
	case run == 0:
		return 0, piece.None
	case run < l:
		return min(l, s.cfg.Ahead), piece.Neighbour
	default:
		return min(max(min(2*run, soonAhead), 2*l, run/16), s.cfg.Ahead), piece.Window
	}
}

// absent returns the run from the first to the last piece of r that is not here.
// s.mu is held.
func (s *Store) absent(r piece.Range) piece.Range {
	r.End = min(r.End, piece.Index(s.cfg.Layout.Count()))
	out := piece.Range{First: r.End, End: r.First}
	for i := r.First; i < r.End; i++ {
		if !s.verified.Has(i) && !s.claimed.Has(i) {
			out.First, out.End = min(out.First, i), i+1
		}
	}
	return out
}

// relax takes back the demand for the pieces of r that no reader is blocked on.
// A reader may begin to wait between the look and the call, and its demand
// would be taken back with the old one: so it looks again and asks again.
func (s *Store) relax(r piece.Range) {
	for i := r.First; i < r.End; i++ {
		if f, waited := s.asked(i); f != nil && !waited {
			f.Relax(one(i))
		}
		if f, waited := s.asked(i); f != nil && waited {
			f.Want(one(i), piece.Demand)
		}
	}
}

func (s *Store) asked(i piece.Index) (f Fetcher, waited bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetcher, s.waits[i] != nil
}

// readPiece fills p from the offset in of piece i, waiting until it is here.
func (s *Store) readPiece(ctx context.Context, i piece.Index, p []byte, in int64) error {
	for {
		err := s.ReadChunk(i, p, in)
		if !errors.Is(err, ErrAbsent) {
			return err
		}
		b, err := s.await(ctx, i)
		if err != nil {
			return err
		}
		if b != nil {
			copy(p, b[in:])
			return nil
		}
	}
}

// Wait returns nil when piece i is verified or claimed, and a *WaitError when
// ctx ends before.
func (s *Store) Wait(ctx context.Context, i piece.Index) error {
	_, err := s.await(ctx, i)
	return err
}

// await is Wait. When it had to wait, it returns the piece, so that its readers
// have it even if the backing can be written but not read.
func (s *Store) await(ctx context.Context, i piece.Index) ([]byte, error) {
	if i < 0 || int(i) >= s.cfg.Layout.Count() {
		return nil, fmt.Errorf("there is no piece %d", i)
	}
	s.mu.Lock()
	if s.verified.Has(i) || s.claimed.Has(i) {
		s.mu.Unlock()
		return nil, nil
	}
	w := s.waits[i]
	if w == nil {
		w = &wait{done: make(chan struct{}), since: time.Now()}
		s.waits[i] = w
		s.room.Broadcast() // a reader is blocked: see awaitRoom
	}
	w.readers++
	f := s.fetcher
	s.mu.Unlock()
	if f != nil {
		f.Want(one(i), piece.Demand)
	}
	select {
	case <-w.done:
		return w.data, nil
	case <-ctx.Done():
	}
	late := &WaitError{Piece: i, Since: w.since, Asked: "nobody was asked: not in the swarm yet", Cause: context.Cause(ctx)}
	if f != nil { // before the demand is taken back
		late.Asked = f.Explain(i)
	}
	s.mu.Lock()
	w.readers--
	last := w.readers == 0 && s.waits[i] == w
	if last {
		delete(s.waits, i)
	}
	s.mu.Unlock()
	if last {
		s.relax(one(i))
	}
	return nil, late
}

// WaitError says that a piece did not come before its reader gave up.
type WaitError struct {
	Piece piece.Index
	Since time.Time // when the first of its readers began to wait
	Asked string    // whom it was asked from and since when, in words
	Cause error     // of the reader's context
}

func (e *WaitError) Error() string {
	return fmt.Sprintf("piece %d was waited for since %s: %v", e.Piece, e.Since.Format(time.TimeOnly), e.Cause)
}

// Unwrap returns why the reader gave up.
func (e *WaitError) Unwrap() error { return e.Cause }

// LogValue gives the parts by their names (slog.LogValuer).
func (e *WaitError) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("piece", int(e.Piece)), slog.String("asked", e.Asked), slog.Time("since", e.Since))
}

// ReadChunk fills p from the offset in of piece i if that is verified, or
// claimed and proves right; otherwise the error wraps ErrAbsent at once. What
// RAM no longer holds is read from the backing as a whole piece and hashed
// again: files can be damaged by others, and disks forget. Pins come first,
// then RAM, then the backing; the store's lock is held only to look.
func (s *Store) ReadChunk(i piece.Index, p []byte, in int64) error {
	if size := s.cfg.Layout.Size(i); size == 0 || in < 0 || int64(len(p)) > size-in {
		return fmt.Errorf("%d bytes from %d are not inside piece %d", len(p), in, i)
	}
	s.mu.Lock()
	b := s.dirty[i]
	verified, claimed := s.verified.Has(i), s.claimed.Has(i)
	s.mu.Unlock()
	switch {
	case b != nil:
		copy(p, b[in:])
		return nil
	case verified:
		if b, ok := s.cfg.Memory.get(s.memKey(i)); ok {
			copy(p, b[in:])
			return nil
		}
	case !claimed:
		return fmt.Errorf("piece %d: %w", i, ErrAbsent)
	}
	b, err := s.load(i)
	if err != nil {
		return err
	}
	copy(p, b[in:])
	return nil
}

// loading is what all who need one piece from the backing share while it is
// read and hashed.
type loading struct {
	done chan struct{}
	data []byte
	err  error
}

// load reads a whole piece from the backing, hashes it, and admits it. A piece
// that is missing there or damaged is lost.
func (s *Store) load(i piece.Index) ([]byte, error) {
	s.mu.Lock()
	if l := s.loading[i]; l != nil {
		s.mu.Unlock()
		<-l.done
		return l.data, l.err
	}
	l := &loading{done: make(chan struct{})}
	s.loading[i] = l
	s.mu.Unlock()
	l.data, l.err = s.hashed(i)
	s.mu.Lock()
	delete(s.loading, i)
	if l.err == nil && s.admit(i, l.data) {
		s.disk.unsaved = s.written.Add(i) || s.disk.unsaved
		if s.cfg.Claimed.Has(i) {
			s.resumed += int64(len(l.data))
		}
	}
	s.mu.Unlock()
	if l.err == nil {
		s.cfg.Memory.put(s.memKey(i), l.data)
	} else {
		s.lost(i, l.err)
		l.err = fmt.Errorf("piece %d: %w: %w: %w", i, ErrAbsent, ErrDisk, l.err)
	}
	close(l.done)
	return l.data, l.err
}

// hashed reads a whole piece from the backing; the bytes have the right hash.
func (s *Store) hashed(i piece.Index) ([]byte, error) {
	s.loads <- struct{}{}
	defer func() { <-s.loads }()
	b := make([]byte, s.cfg.Layout.Size(i))
	n, err := s.cfg.Backing.ReadAt(b, s.cfg.Layout.Offset(i))
	switch {
	case n == len(b) && sha1.Sum(b) == s.cfg.Hash(i):
		return b, nil
	case n == len(b):
		return nil, errors.New("the hash is wrong")
	case err == nil:
		return nil, io.ErrUnexpectedEOF
	default:
		return nil, err
	}
}
