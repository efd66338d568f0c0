package cache

import (
	"context"
	"runtime"
	"sync"

	"dcfs/cache/piece"
)

// Scrub hashes every claimed piece, so that the release can become complete:
// once each, several at a time, so that the disk is not idle while a hash is
// computed. Pieces are served meanwhile; one that a reader needs is hashed
// ahead of its turn and not again. Scrub returns when none is left or ctx ends.
func (s *Store) Scrub(ctx context.Context) {
	s.mu.Lock()
	todo := s.claimed.Clone()
	s.mu.Unlock()
	s.inTurn(ctx, todo, func(i piece.Index) {
		s.mu.Lock()
		still := s.claimed.Has(i)
		s.mu.Unlock()
		if still {
			_, _ = s.load(i) // a damaged piece is lost, and OnLost tells
		}
	})
}

// Recheck hashes these pieces again as they are in the backing, whatever RAM
// holds of them. It is for when somebody else may have changed the backing.
// What proves damaged is lost and is fetched again. Pieces that the backing
// must yet take are left out.
func (s *Store) Recheck(ctx context.Context, pieces *piece.Set) {
	s.inTurn(ctx, pieces, func(i piece.Index) {
		s.mu.Lock()
		here := s.written.Has(i) || s.claimed.Has(i)
		s.mu.Unlock()
		if !here {
			return
		}
		if _, err := s.hashed(i); err != nil {
			s.lost(i, err)
		}
	})
}

// inTurn calls do for each piece, in order and a few side by side, and returns
// when all calls have.
func (s *Store) inTurn(ctx context.Context, pieces *piece.Set, do func(piece.Index)) {
	next := make(chan piece.Index)
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), maxLoads/2) {
		workers.Go(func() { // ends when next is closed
			for i := range next {
				do(i)
			}
		})
	}
	for i := range pieces.All() {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
}
