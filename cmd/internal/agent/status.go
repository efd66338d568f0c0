package agent

import (
	"encoding/hex"
	"time"

	"dcfs/cache/piece"
	"dcfs/cmd/internal/control"
	"dcfs/fs/tree"
)

// Status tells how the life is (control.Source).
func (l *life) Status() control.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := control.Status{
		Schema: control.Schema, PID: l.cfg.PID, Version: l.cfg.Release,
		State: l.state, Reason: l.reason, Started: l.started, StateSince: l.since,
		Mountpoint: l.cfg.Mountpoint, Dest: l.cfg.Dest, Activate: l.cfg.Activate,
		Waiting: []control.Wait{},
	}
	if l.rel != nil {
		s.Version, s.Infohash = l.rel.Name, hex.EncodeToString(l.rel.InfoHash[:])
		s.Bytes, s.Pieces = l.rel.Layout.Total, l.rel.Layout.Count()
	}
	if l.state == control.Lingering {
		s.LingerLeftMS, s.LingerWhy = max(0, time.Until(l.lingerEnd).Milliseconds()), l.lingerWhy
	}
	if l.ready {
		l.addFigures(&s)
	}
	return s
}

// addFigures fills in what the store and the swarm know. l.mu is held.
func (l *life) addFigures(s *control.Status) {
	have := l.store.Stats()
	s.BytesHave, s.PiecesHave = have.Bytes, have.Pieces
	s.BytesClaimed, s.BytesResumed = have.Unproven, have.Resumed
	st := l.swarm.Stats()
	s.BytesFetched, s.BytesUploaded = st.Received, st.Sent
	if local := l.local.Load(); local != nil {
		s.BytesReused = local.Bytes()
	}
	s.Peers, s.Seeds = st.Peers, st.Seeds
	from, trouble := l.swarm.Sources(), l.swarm.Trouble()
	s.BytesOrigin, s.BytesPeers, s.BytesWebSeed = from.Origin, from.Peers, from.Web
	if !from.First.IsZero() {
		s.FirstByteMS = max(1, from.First.Sub(l.started).Milliseconds())
	}
	s.HashFailures, s.Banned = trouble.HashFailures, trouble.Banned
	if rate := l.pulse.trend().rate; rate > 0 {
		s.EtaMS = (s.Bytes - s.BytesHave) * 1000 / rate
	}
	s.Bound, s.Held = l.holdup.bound, l.holdup.held()
	s.DownRate, s.UpRate = l.rates.update(time.Now(), st.Received, st.Sent)
	s.PeerListen = l.node.Addr()
	for _, p := range l.swarm.Peers() {
		if len(s.PeerAddrs) == control.MaxPeerAddrs {
			break
		}
		s.PeerAddrs = append(s.PeerAddrs, control.Peer{Addr: p.Addr, Have: p.Pieces, Down: p.Down, Up: p.Up, Client: p.Client})
	}
	for _, w := range l.store.Waits() {
		if len(s.Waiting) == control.MaxWaiting {
			break
		}
		s.Waiting = append(s.Waiting, control.Wait{
			Path: l.firstPath(w.Piece), Piece: int(w.Piece), Since: w.Since,
			AgeMS: time.Since(w.Since).Milliseconds(), Readers: w.Readers,
		})
	}
	hits, misses := l.memory.Counts()
	s.Cache = control.Cache{Budget: l.cfg.CacheBytes, Used: l.memory.Used() + have.Dirty, Hits: hits, Misses: misses}
}

// firstPath names the first file that lies in a piece.
func (l *life) firstPath(i piece.Index) string {
	layout := l.rel.Layout
	for x := range l.rel.Tree.Extents(layout.Offset(i), layout.Size(i)) {
		if x.File != tree.None {
			return l.rel.Tree.Path(x.File)
		}
	}
	return ""
}

// rates turns counters into bytes per second over the time between questions.
type rates struct {
	at       time.Time
	down, up int64 // counters at the last measurement
	perSec   [2]int64
}

// shortest is the least time between two measurements.
const shortest = 500 * time.Millisecond

func (r *rates) update(now time.Time, down, up int64) (downRate, upRate int64) {
	if span := now.Sub(r.at); r.at.IsZero() || span >= shortest {
		if !r.at.IsZero() {
			r.perSec[0] = int64(float64(down-r.down) / span.Seconds())
			r.perSec[1] = int64(float64(up-r.up) / span.Seconds())
		}
		r.at, r.down, r.up = now, down, up
	}
	return r.perSec[0], r.perSec[1]
}
