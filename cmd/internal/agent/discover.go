package agent

import (
	"context"
	"slices"
	"time"

	"dcfs/cmd/internal/catalog"
)

const (
	// discoverEvery is how often SRV records are looked up again: the resolver
	// does not tell for how long they hold.
	discoverEvery = 30 * time.Second
	discoverSoon  = 3 * time.Second // while there is no peer
	lookupTime    = 5 * time.Second
	lookupAgain   = time.Second
)

// findOrigins looks up the origins that are named by DNS, again and again until
// ctx ends.
func (l *life) findOrigins(ctx context.Context) error {
	if !slices.ContainsFunc(l.cfg.Origins, catalog.IsSRV) {
		return nil
	}
	l.named = l.cfg.Origins
	for {
		found, err := lookUp(ctx, l.named)
		if err == nil {
			l.cfg.Origins = found
			return nil
		}
		l.log.Warn("no origin is known yet", "cause", err)
		if sleep(ctx, lookupAgain); ctx.Err() != nil {
			return err
		}
	}
}

func lookUp(ctx context.Context, named []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	return catalog.Expand(ctx, named)
}

// rediscover announces to the trackers of origins that appear in the DNS later,
// until ctx ends.
func (l *life) rediscover(ctx context.Context) error {
	if len(l.named) == 0 {
		return nil
	}
	last := time.Now()
	for sleep(ctx, discoverSoon); ctx.Err() == nil; sleep(ctx, discoverSoon) {
		if time.Since(last) < discoverEvery && l.swarm.Stats().Peers > 0 {
			continue
		}
		last = time.Now()
		found, err := lookUp(ctx, l.named)
		if err != nil {
			l.log.Debug("looking up origins again", "cause", err)
			continue
		}
		for _, t := range catalog.Trackers(found) {
			if l.swarm.AddTracker(t) {
				l.log.Info("another origin", "tracker", t)
			}
		}
	}
	return nil
}
