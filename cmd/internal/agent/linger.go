package agent

import (
	"context"
	"fmt"
	"math"
	"time"

	"dcfs/cmd/internal/control"
	"dcfs/swarm"
)

const (
	// lingerEvery is how often a host that seeds on looks whether it is needed.
	lingerEvery = time.Second
	// lingerTimes --linger is how long it does at most by default.
	lingerTimes = 10
)

// window is for how long a host seeds on: least in any case, and until most
// while it is needed.
type window struct{ least, most time.Duration }

// window is a fixed one if the longest time is no longer than the least.
func (c *Config) window() window {
	most := c.LingerMax
	if most < 0 {
		most = lingerTimes * min(c.Linger, math.MaxInt64/lingerTimes)
	}
	return window{c.Linger, max(c.Linger, most)}
}

// verdict is what a host does that has seeded for a while.
type verdict struct {
	look time.Duration // after which it looks again; 0: it is done
	left time.Duration // for which it goes on if nothing changes
	why  string
}

// judge decides whether a host that has seeded for spent goes on.
func (w window) judge(spent time.Duration, need swarm.Need) verdict {
	switch {
	case spent < w.least:
		return verdict{w.least - spent, w.least - spent, fmt.Sprintf("for %s in any case (--linger)", w.least)}
	case spent >= w.most || need.Peers == 0:
		return verdict{}
	}
	left := w.most - spent
	return verdict{min(lingerEvery, left), left, fmt.Sprintf("%s %s that fewer than %d others have; until %s have passed (--linger-max)",
		count(need.Peers, "peer lacks", "peers lack"), count(need.Pieces, "piece"), need.Few, w.most)}
}

// linger seeds on for the window, or until ctx ends.
func (l *life) linger(ctx context.Context) {
	began, w := time.Now(), l.cfg.window()
	if l.native != nil {
		l.native.lived = true
	}
	l.lingerOn(w.judge(0, swarm.Need{}), began)
	l.enter(control.Lingering, nil)
	needed := false
	for ctx.Err() == nil {
		now := time.Now()
		need := l.swarm.Need()
		v := w.judge(now.Sub(began), need)
		l.lingerOn(v, now)
		if now.Sub(began) >= w.least && needed != (need.Peers > 0) {
			needed = need.Peers > 0
			l.log.Info("seeding on by need", "peers", need.Peers, "pieces", need.Pieces, "at_most", v.left.Round(time.Second))
		}
		if v.look == 0 {
			return
		}
		sleep(ctx, min(v.look, lingerEvery))
	}
}

// lingerOn notes why this host seeds on and for how long.
func (l *life) lingerOn(v verdict, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lingerEnd, l.lingerWhy = now.Add(v.left), v.why
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
