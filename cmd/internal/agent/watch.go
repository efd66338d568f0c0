package agent

import (
	"context"
	"fmt"
	"time"
)

const watchEvery = 500 * time.Millisecond

// awaitComplete waits until every piece is here. It gives up when no peer was
// ever reached within the configured wait, and when the disk refuses for too
// long; a swarm that was reached once is waited for without end.
func (l *life) awaitComplete(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	w := watch{life: l, deadline: time.Now().Add(l.cfg.Wait), mounted: l.mountDone()}
	for {
		select {
		case <-l.store.Complete():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%w: start again to resume", ErrStopped)
		case <-w.mounted:
			w.mounted = nil
			l.log.Warn("the mount was taken away by somebody else; the copy is still completed", "mountpoint", l.cfg.Mountpoint)
		case now := <-tick.C:
			if err := w.check(now); err != nil {
				return err
			}
		}
	}
}

func (l *life) mountDone() <-chan struct{} {
	if l.server == nil {
		return nil
	}
	return l.server.Done()
}

// watch judges from time to time whether there is still hope.
type watch struct {
	life     *life
	deadline time.Time
	reached  bool
	mounted  <-chan struct{}
}

func (w *watch) check(now time.Time) error {
	if err := w.life.checkStanding(); err != nil {
		return err
	}
	st := w.life.swarm.Stats()
	w.reached = w.reached || st.Peers > 0 || st.Useful > 0
	if !w.reached && now.After(w.deadline) && w.life.store.Stats().Claimed == 0 && !w.life.reusing.Load() {
		return fmt.Errorf("%w: no peer answered within %s (trackers %v, %d peers known)%s: is the origin running and its peer port reachable? name a peer with --peer, or a web seed with --web-seed",
			ErrNoSource, w.life.cfg.Wait, w.life.trackers, st.Known, w.life.failedWebSeeds())
	}
	err, since := w.life.store.DiskError()
	if err == nil {
		w.life.resumePrefetch()
	}
	if err != nil && now.Sub(since) > w.life.cfg.DiskPatience {
		return w.life.lostPatience(err)
	}
	return nil
}
