package swarm

import "time"

// The exchange with a peer can fall silent although both are alive: a request
// that the other never saw, a connection that died without a sign. Nothing in
// the protocol notices. So when pieces are missing, peers are there, and not a
// byte has come for a while, the connections are opened anew; what came of a
// piece before is kept.
const (
	stallAfter = 15 * time.Second
	stallMost  = 2 * time.Minute // between two attempts, when they do not help
	fellSilent = "nothing comes from any peer; connecting anew"
)

// stall notices that nothing comes any more.
type stall struct {
	useful   int64         // bytes at the last look
	since    time.Time     // when they changed last, or were acted on
	patience time.Duration // until the next attempt
}

// look is told how things stand and reports whether to start anew.
func (s *stall) look(now time.Time, useful int64, waiting bool) bool {
	if useful != s.useful || !waiting || s.since.IsZero() {
		s.useful, s.since, s.patience = useful, now, stallAfter
		return false
	}
	if now.Sub(s.since) < s.patience {
		return false
	}
	s.since, s.patience = now, min(2*s.patience, stallMost)
	return true
}

// unstall closes all connections if nothing has come for too long; the next
// offer of peers opens them again.
func (s *Swarm) unstall(state *stall) {
	st := s.peerStats()
	waiting := s.t.Info() != nil && s.t.BytesMissing() > 0 && st.Peers > 0
	if !state.look(time.Now(), st.Useful, waiting) {
		return
	}
	s.log.Warn(fellSilent, "peers", st.Peers, "missing", s.t.BytesMissing())
	for _, c := range s.t.PeerConns() {
		_ = c.Close() // it never fails
	}
}
