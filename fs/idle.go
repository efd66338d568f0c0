package fs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	idlePoll   = 500 * time.Millisecond
	pruneBatch = 1024 // node IDs in one notification
)

// Idle returns nil when nothing holds the FUSE mount any more: no open file,
// mapping, working directory or root, in any mount namespace. It waits for
// that until ctx ends. It is of use after Handover, when nobody new can come.
//
// The kernel is asked to drop what is cached and not in use (FUSE 7.45), and
// what it still holds is known from its FORGETs. The root is held without a
// lookup, so the processes in /proc are asked too; on older kernels they are
// all there is.
func (s *Server) Idle(ctx context.Context) error {
	tick := time.NewTicker(idlePoll)
	defer tick.Stop()
	for {
		s.prune()
		if !s.prunes() || s.raw.holds.total.Load() <= 0 {
			if who := findHolder(s.mnt.major, s.mnt.minor); who == "" {
				return nil
			}
		}
		select {
		case <-s.done:
			return nil
		case <-ctx.Done():
			return s.busy(ctx.Err())
		case <-s.raw.holds.none:
		case <-tick.C:
		}
	}
}

func (s *Server) busy(cause error) error {
	who := findHolder(s.mnt.major, s.mnt.minor)
	if who == "" {
		who = "the kernel or a process out of sight"
	}
	return fmt.Errorf("%s: still held by %s (%d lookups): %w", s.path, who, s.raw.holds.total.Load(), cause)
}

// prunes says whether the count of what the kernel holds can be relied on.
func (s *Server) prunes() bool {
	return s.conn.prunes() && !s.resumed
}

// prune asks the kernel to let go of everything that is only cached.
func (s *Server) prune() {
	if !s.prunes() {
		return
	}
	ids := s.raw.holds.held()
	for len(ids) > 0 {
		n := min(len(ids), pruneBatch)
		if err := s.conn.prune(ids[:n]); err != nil && !errors.Is(err, unix.ENOENT) {
			s.log.Debug("prune", "cause", err)
			return
		}
		ids = ids[n:]
	}
}
