package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dcfs/cmd/internal/control"
)

// standing is what a host answers when it is asked about a copy and a link.
type standing struct {
	Complete bool   `json:"complete"`
	Infohash string `json:"infohash"`
	Target   string `json:"target"` // where the link leads
	Epoch    int64  `json:"epoch"`
}

// fetched is what `dcfs mount` reports at its stage.
type fetched struct {
	Infohash string         `json:"infohash"`
	Held     []control.Held `json:"held"`
}

// swapped is what `dcfs activate` and `dcfs rollback` report.
type swapped struct {
	Target   string `json:"target"`
	Previous string `json:"previous"`
}

// fetch is phase 1: every host makes its copy, or has it. It returns when all
// have ended, or when the quorum is ready and the stragglers had their time.
func (d *deployment) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.cfg.Timeout, fmt.Errorf("%w within %s", errLate, d.cfg.Timeout))
	defer cancel()
	var once sync.Once
	late := fmt.Errorf("%w %s after the quorum", errLate, d.cfg.Straggler)
	stragglers, hurry := context.WithCancelCause(ctx)
	defer hurry(nil)
	var timer *time.Timer
	d.each(all, func(i int) {
		d.prepare(stragglers, i)
		if d.count(ready) >= d.cfg.Quorum {
			once.Do(func() { timer = time.AfterFunc(d.cfg.Straggler, func() { hurry(late) }) })
		}
	})
	if timer != nil {
		timer.Stop()
	}
	if cause := context.Cause(ctx); cause != nil && d.count(ready) < d.cfg.Quorum {
		return fmt.Errorf("%w: %d of %d hosts are ready, %d are needed: %w", ErrFailed, d.count(ready), len(d.cfg.Hosts), d.cfg.Quorum, cause)
	}
	if n := d.count(ready); n < d.cfg.Quorum {
		return fmt.Errorf("%w: %d of %d hosts are ready, %d are needed; no link was swapped", ErrFailed, n, len(d.cfg.Hosts), d.cfg.Quorum)
	}
	return nil
}

// prepare makes one host ready.
func (d *deployment) prepare(ctx context.Context, i int) {
	host := d.cfg.Hosts[i]
	fail := func(err error) {
		d.set(i, func(h *Host) { h.State, h.Error = Failed, err.Error() })
	}
	if ctx.Err() != nil {
		fail(context.Cause(ctx))
		return
	}
	var s standing
	if err := d.ask(ctx, host, d.cfg.askLine(), &s); err != nil {
		fail(err)
		return
	}
	d.learn(s.Epoch)
	whole := s.Complete && s.Infohash == d.cfg.InfoHash
	d.set(i, func(h *Host) {
		h.State, h.Target, h.fetched = Fetching, s.Target, !whole
		if whole {
			h.State = Ready
		}
	})
	if whole {
		return
	}
	f, err := d.fetchOn(ctx, i)
	if err == nil && f.Infohash != d.cfg.InfoHash {
		err = fmt.Errorf("it has %s under this name, and %s was published", f.Infohash, d.cfg.InfoHash)
	}
	if err != nil {
		fail(err)
		return
	}
	d.set(i, func(h *Host) { h.State, h.held = Ready, f.Held })
}

// epochUnit is what there is of epochs in a second. JSON keeps them exact.
const epochUnit = 1_000_000

// learn makes the epoch of this deployment greater than one that a host knows. Two
// that begin at once, or know of the same, have different ones all the same: or the
// hosts would take the one for the other.
func (d *deployment) learn(epoch int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := epoch - epoch%epochUnit + d.nonce
	if next <= epoch {
		next += epochUnit
	}
	d.epoch = max(d.epoch, next, d.start.Unix()*epochUnit+d.nonce)
}

// activate is phase 2: the hosts that are ready swap, and are looked at.
func (d *deployment) activate(ctx context.Context) error {
	line := d.cfg.swapLine(epochText(d.epoch))
	d.each(ready, func(i int) {
		if ctx.Err() != nil {
			return // not told, so there is nothing to take back
		}
		d.set(i, func(h *Host) { h.State = Swapping })
		var s swapped
		err := d.ask(ctx, d.cfg.Hosts[i], line, &s)
		d.set(i, func(h *Host) {
			if h.State, h.Target = Swapped, s.Target; err != nil {
				h.State, h.Target = Unknown, ""
				h.Error = err.Error()
			}
		})
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if n := d.count(inState(Swapped)); n < d.cfg.Quorum {
		return fmt.Errorf("%w: %d hosts have swapped, %d are needed", ErrFailed, n, d.cfg.Quorum)
	}
	return d.checkHealth(ctx)
}

func (d *deployment) checkHealth(ctx context.Context) error {
	d.each(inState(Swapped), func(i int) {
		if d.cfg.Health == "" {
			d.set(i, func(h *Host) { h.State = Done })
			return
		}
		err := d.healthy(ctx, d.cfg.Hosts[i])
		d.set(i, func(h *Host) {
			if h.State = Done; err != nil {
				h.State, h.Error = Unhealthy, err.Error()
			}
		})
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if n := d.count(inState(Unhealthy)); n > d.cfg.MaxUnhealthy {
		return fmt.Errorf("%w: %d hosts are not healthy, %d may be", ErrFailed, n, d.cfg.MaxUnhealthy)
	}
	return nil
}

// healthy tries a host's health check until it succeeds or its time is over.
func (d *deployment) healthy(stop context.Context, host string) error {
	ctx, cancel := context.WithTimeout(stop, d.cfg.HealthTime)
	defer cancel()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		_, err := d.cfg.Runner.Run(ctx, host, d.cfg.healthLine())
		if err == nil {
			return nil
		}
		select {
		case <-stop.Done():
			return context.Cause(stop)
		case <-ctx.Done():
			return fmt.Errorf("not healthy within %s: %w", d.cfg.HealthTime, err)
		case <-time.After(wait):
		}
	}
}

// takeBack undoes the swaps, on every host to which one was sent: one whose
// answer got lost may have swapped. Hosts that do not answer are tried twice.
func (d *deployment) takeBack(ctx context.Context) {
	line := d.cfg.takeBackLine(epochText(d.epoch))
	for range 2 {
		d.each(touched, func(i int) {
			var s swapped
			err := d.ask(ctx, d.cfg.Hosts[i], line, &s)
			d.set(i, func(h *Host) {
				if h.State, h.Target = Back, s.Target; err != nil {
					h.State, h.Target = Unknown, ""
					h.Error = fmt.Sprintf("it may be on %s: %v", d.cfg.Version, err)
				}
			})
		})
	}
	d.each(inState(Unknown), func(i int) { d.lookWhere(ctx, i) })
}

// lookWhere asks a host that did not go back where its link leads. That is where it
// is, and not where it will be: an order may still be under way to it.
func (d *deployment) lookWhere(ctx context.Context, i int) {
	var s standing
	if d.ask(ctx, d.cfg.Hosts[i], d.cfg.askLine(), &s) == nil {
		d.set(i, func(h *Host) { h.Target = s.Target })
	}
}
