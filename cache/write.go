package cache

import (
	"crypto/sha1"
	"fmt"
	"sync"

	"dcfs/cache/piece"
)

// arrival collects the chunks of one piece. Hashing closes it, so that a late
// duplicate can never change what was hashed.
type arrival struct {
	mu     sync.Mutex
	data   []byte
	closed bool
}

// write takes a chunk and reports whether the arrival was still open.
func (a *arrival) write(p []byte, off, size int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	if a.data == nil { // here and not under the store's lock: it takes a while
		a.data = make([]byte, size)
	}
	copy(a.data[off:], p)
	return true
}

// close ends the arrival and returns its bytes, which change no more.
func (a *arrival) close() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	return a.data
}

// WriteChunk takes len(p) bytes of piece i from the offset off inside it. They
// are not readable before Verify. Chunks of a piece that is verified already
// are dropped.
func (s *Store) WriteChunk(i piece.Index, p []byte, off int64) error {
	size := s.cfg.Layout.Size(i)
	if size == 0 || off < 0 || int64(len(p)) > size-off {
		return fmt.Errorf("chunk at %d, %d bytes long, does not fit piece %d of %d bytes", off, len(p), i, size)
	}
	for {
		s.mu.Lock()
		if s.verified.Has(i) {
			s.mu.Unlock()
			return nil
		}
		a := s.arriving[i]
		if a == nil {
			a = new(arrival)
			s.arriving[i] = a
		}
		s.mu.Unlock()
		if a.write(p, off, size) {
			return nil
		}
		// It is being hashed and left the map before it closed: the chunk
		// belongs to the next attempt.
	}
}

// Verify is the one door: it hashes piece i and, when its SHA-1 is the
// release's, makes it readable and wakes those who wait for it. It returns the
// sum that was found; with an error the sum means nothing. Then it waits while
// too much is verified and not yet on disk; see Config.DirtyLimit.
func (s *Store) Verify(i piece.Index) ([sha1.Size]byte, error) {
	s.mu.Lock()
	a := s.arriving[i]
	delete(s.arriving, i)
	pinned := s.dirty[i]
	have := s.verified.Has(i) || s.claimed.Has(i)
	s.mu.Unlock()
	switch {
	case pinned != nil:
		return sha1.Sum(pinned), nil
	case a != nil:
		return s.verifyArrival(i, a.close())
	case have:
		b, err := s.load(i)
		return sha1.Sum(b), err
	default:
		return [sha1.Size]byte{}, fmt.Errorf("piece %d: %w", i, ErrAbsent)
	}
}

func (s *Store) verifyArrival(i piece.Index, data []byte) ([sha1.Size]byte, error) {
	sum := sha1.Sum(data)
	if sum != s.cfg.Hash(i) {
		return sum, nil
	}
	s.mu.Lock()
	if s.admit(i, data) {
		s.pin(i, data)
		s.cfg.Memory.put(s.memKey(i), data)
	}
	given := s.awaitRoom(i)
	still := s.verified.Has(i)
	s.mu.Unlock()
	for _, j := range given {
		s.relax(one(j)) // or it would be fetched at once, only to be given up again
		s.gone(j, ErrDisk)
	}
	if !still {
		return [sha1.Size]byte{}, fmt.Errorf("piece %d was given up while the disk refused: %w", i, ErrAbsent)
	}
	return sum, nil
}

// pin keeps a verified piece in RAM until the backing has it. s.mu is held.
func (s *Store) pin(i piece.Index, data []byte) {
	s.dirty[i] = data
	s.bytes += int64(len(data))
	s.queue = append(s.queue, i)
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// awaitRoom holds its caller back, who has just admitted piece i, while too
// much is pinned. Readers that are blocked on other pieces must not suffer from
// a full disk, so for them it lets the caller pass: within twice the limit at
// any time, and beyond by giving up pins while the disk refuses. It returns
// what was given up. Nobody is held back once the fetcher has gone: a swarm
// that is left waits for the pieces that it is verifying. s.mu is held.
func (s *Store) awaitRoom(i piece.Index) (given []piece.Index) {
	for s.bytes > s.cfg.DirtyLimit && !s.closed && s.fetcher != nil {
		if len(s.waits) > 0 && s.bytes/2 <= s.cfg.DirtyLimit {
			break
		}
		if len(s.waits) > 0 && s.disk.writeErr != nil {
			return s.giveUp(i)
		}
		s.room.Wait()
	}
	return nil
}

// giveUp forgets the oldest pinned pieces until the limit is kept, but not the
// one that is being written and not keep. s.mu is held.
func (s *Store) giveUp(keep piece.Index) (given []piece.Index) {
	rest := s.queue[:1]
	for _, i := range s.queue[1:] {
		if i == keep || s.bytes <= s.cfg.DirtyLimit {
			rest = append(rest, i)
			continue
		}
		s.bytes -= int64(len(s.dirty[i]))
		delete(s.dirty, i)
		s.forget(i)
		given = append(given, i)
	}
	s.queue = rest
	return given
}

// admit makes piece i, whose hash was right, readable. It reports whether it
// was not before. s.mu is held.
func (s *Store) admit(i piece.Index, data []byte) bool {
	s.claimed.Remove(i)
	delete(s.arriving, i)
	if !s.verified.Add(i) {
		return false
	}
	if w := s.waits[i]; w != nil {
		w.data = data
		close(w.done)
		delete(s.waits, i)
	}
	if s.verified.Full() {
		close(s.complete)
	}
	return true
}

// Drop forgets the chunks of piece i, after they proved wrong. It does nothing
// to a piece that is verified.
func (s *Store) Drop(i piece.Index) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.arriving, i)
}
