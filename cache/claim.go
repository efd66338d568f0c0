package cache

import (
	"fmt"

	"dcfs/cache/piece"
)

// Offer takes a whole piece that came from somewhere else than a peer, through
// the same door as Verify: it is hashed, and readable when its SHA-1 is the
// release's. It reports whether the piece is readable now; chunks of it that
// arrive meanwhile stay apart from these bytes until they are proven. Then it
// waits like Verify while too much is not yet on disk. data must not change
// any more once the piece was taken.
func (s *Store) Offer(i piece.Index, data []byte) (bool, error) {
	if size := s.cfg.Layout.Size(i); size == 0 || int64(len(data)) != size {
		return false, fmt.Errorf("%d bytes are not piece %d", len(data), i)
	}
	sum, err := s.verifyArrival(i, data)
	return err == nil && sum == s.cfg.Hash(i), err
}

// Claim takes note that the backing is said to hold these pieces. They are
// served and told of from now on, and hashed before their first use; a wrong
// claim makes a piece absent again (Config.OnLost). Readers that are blocked
// on one of them already go on when Scrub comes to it, or a peer brings it. It
// returns the pieces that were not here before.
func (s *Store) Claim(set *piece.Set) *piece.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := piece.NewSet(s.cfg.Layout.Count())
	for i := range set.All() {
		if !s.verified.Has(i) && s.claimed.Add(i) {
			fresh.Add(i)
			s.disk.unsaved = true
		}
	}
	return fresh
}
