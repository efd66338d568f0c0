package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"dcfs/cmd/internal/control"
	"dcfs/cmd/internal/metrics"
	"dcfs/fs"
)

// ErrHTTP is wrapped when the address of --http cannot be listened on.
var ErrHTTP = errors.New("cannot listen for HTTP")

// serveHTTP answers /metrics and /healthz and shows the page, when that is
// wanted.
func (l *life) serveHTTP(ctx context.Context, group *errgroup.Group) error {
	if l.cfg.HTTP == "" {
		return nil
	}
	var lis net.Listener
	err := afterDeath(ctx, func() (err error) { lis, err = net.Listen("tcp", l.cfg.HTTP); return err })
	if err != nil {
		return fmt.Errorf("%w on %s: %w; choose another address with --http", ErrHTTP, l.cfg.HTTP, err)
	}
	l.reads = metrics.NewReads()
	figures := metrics.Handler(l.cfg.Version, metrics.Node(l.sample), metrics.Gate(l.cfg.Gate), l.reads)
	mux, page := metrics.Mux(figures, l.health), l.newBoard()
	for pattern, h := range page.Handlers() {
		mux.HandleFunc(pattern, h)
	}
	server := metrics.Server(mux)
	server.ErrorLog = slog.NewLogLogger(l.log.Handler(), slog.LevelDebug)
	l.log.Info("metrics", "http", lis.Addr().String())
	group.Go(func() error { l.tellPage(ctx, page); return nil })
	group.Go(func() error {
		stopped := context.AfterFunc(ctx, func() { server.Close() })
		defer stopped()
		if err := server.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}

// health says what keeps the release from going on, if anything does.
func (l *life) health() error {
	l.mu.Lock()
	state, reason, ready := l.state, l.reason, l.ready
	l.mu.Unlock()
	if state == control.Failed {
		return errors.New("failed: " + reason)
	}
	if !ready {
		return nil
	}
	err, _ := l.store.DiskError()
	return err
}

// states are all that a release can be in, in the order of a life.
var states = []string{
	string(control.Announced), string(control.Mounted), string(control.Complete), string(control.Materialised),
	string(control.Lingering), string(control.Done), string(control.Failed),
}

// sample gathers the figures of this moment.
func (l *life) sample() metrics.Sample {
	st := l.Status()
	s := metrics.Sample{
		Version: st.Version, Infohash: st.Infohash, States: states, State: string(st.State), Since: st.StateSince,
		Bytes: st.Bytes, BytesHave: st.BytesHave, Pieces: st.Pieces, PiecesHave: st.PiecesHave,
		FromReuse: st.BytesReused, Sent: st.BytesUploaded, Peers: st.Peers, Seeds: st.Seeds,
		CacheBudget: st.Cache.Budget, CacheUsed: st.Cache.Used, CacheHits: st.Cache.Hits, CacheMisses: st.Cache.Misses,
	}
	l.mu.Lock()
	ready := l.ready
	l.mu.Unlock()
	if ready {
		l.addTraffic(&s)
	}
	return s
}

// addTraffic adds what the status does not tell, or tells only in part.
func (l *life) addTraffic(s *metrics.Sample) {
	st, from, trouble := l.swarm.Stats(), l.swarm.Sources(), l.swarm.Trouble()
	s.Received, s.Useful, s.Known = st.Received, st.Useful, st.Known
	s.FromOrigin, s.FromPeers, s.FromWeb = from.Origin, from.Peers, from.Web
	s.HashFailures, s.Banned, s.LostTrackers = trouble.HashFailures, trouble.Banned, len(trouble.Trackers)
	for _, w := range l.store.Waits() {
		s.WaitingPieces++
		s.WaitingReads += w.Readers
		s.OldestWait = max(s.OldestWait, time.Since(w.Since))
	}
	s.Unwritten = l.store.Stats().Dirty
	err, _ := l.store.DiskError()
	s.DiskFails = err != nil
}

// timed is the content of the mount, with a clock.
type timed struct{ life *life }

var _ fs.Content = timed{}

// ReadAt counts a read, and whether all of it was here when it was asked for.
func (t timed) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	want := min(int64(len(p)), t.life.rel.Layout.Total-off)
	hit := t.life.store.VerifiedBytes(off, want) == want
	began := time.Now()
	n, err := t.life.store.ReadAt(ctx, p, off)
	failure := err
	if errors.Is(err, io.EOF) {
		failure = nil
	}
	t.life.reads.Done(hit, time.Since(began), failure)
	return n, err
}

// content is what the mount reads.
func (l *life) content() fs.Content {
	if l.reads == nil {
		return l.store
	}
	return timed{l}
}
