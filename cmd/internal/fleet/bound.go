package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dcfs/cmd/internal/control"
)

// Rates are what links give, in bytes a second; 0 for what nobody knows.
type Rates struct {
	OriginUp, HostUp, HostDown int64
}

// Bound is the least time in which the release can be everywhere: that of the
// origin sending it once, of a host receiving it, and of all that can send
// sending it to all, whichever is longest. All are seconds.
type Bound struct {
	Seconds float64 `json:"seconds"` // 0 when it is not known
	Origin  float64 `json:"origin"`  // F/u_s
	Host    float64 `json:"host"`    // F/d
	All     float64 `json:"all"`     // N·F/(u_s+Σu)
	Hosts   int     `json:"hosts"`   // N: those that had to fetch
	Unknown string  `json:"unknown,omitempty"`
}

func boundOf(bytes int64, hosts int, r Rates) Bound {
	b := Bound{Hosts: hosts}
	switch {
	case hosts == 0:
		b.Unknown = "no host had to fetch"
		return b
	case bytes <= 0 || r.OriginUp <= 0 || r.HostUp <= 0 || r.HostDown <= 0:
		b.Unknown = "the rates of the links are not known: --origin-up, --host-up and --host-down tell them"
		return b
	}
	size, n := float64(bytes), float64(hosts)
	b.Origin = size / float64(r.OriginUp)
	b.Host = size / float64(r.HostDown)
	b.All = n * size / (float64(r.OriginUp) + n*float64(r.HostUp))
	b.Seconds = max(b.Origin, b.Host, b.All)
	return b
}

// MaxSlow is how many slow hosts a report names.
const MaxSlow = 10

// Slow is a host that took longer than most, and what it waited for.
type Slow struct {
	Host    string         `json:"host"`
	Seconds float64        `json:"seconds"` // until it was ready, or given up
	Ready   bool           `json:"ready"`
	Held    []control.Held `json:"held"`          // how long by what, longest first; empty: it did not say
	Now     string         `json:"now,omitempty"` // of a host that is not ready: what bounded it at the end
}

// slow lists the hosts that were not ready, and those that took half as long
// again as the median and a second longer, slowest first.
func slow(hosts []Host, median float64) (out []Slow) {
	for _, h := range hosts {
		late := h.fetched && h.Ready > max(1.5*median, median+1)
		if gaveUp := h.fetched && h.State == Failed; late || gaveUp {
			s := Slow{Host: h.Name, Seconds: h.Ready, Ready: !gaveUp, Held: slices.Clone(h.held), Now: h.now}
			if gaveUp {
				s.Seconds, s.Now = h.At.Seconds(), cmp.Or(h.now, h.Error)
			}
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b Slow) int { return cmp.Compare(b.Seconds, a.Seconds) })
	return out[:min(len(out), MaxSlow)]
}

// errLate is wrapped when a host had its time.
var errLate = errors.New("not ready")

// lookTime bounds the last question to a host that is late.
const lookTime = 5 * time.Second

// fetchOn runs the copy on a host. A host that had its time is asked what it
// waits for before the command is ended there.
func (d *deployment) fetchOn(ctx context.Context, i int) (fetched, error) {
	run, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	looked := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(looked)
		if errors.Is(context.Cause(ctx), errLate) {
			d.askWhy(run, i)
		}
		end(context.Cause(ctx))
	})
	var f fetched
	err := d.call(run, d.cfg.Hosts[i], d.cfg.fetchLine(), &f)
	if !stop() {
		<-looked
	}
	return f, err
}

// statusAnswer is what of `dcfs status --json` is looked at.
type statusAnswer struct {
	Processes []control.Status `json:"processes"`
}

// askWhy asks a host what its process waits for.
func (d *deployment) askWhy(ctx context.Context, i int) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var a statusAnswer
	if d.call(ctx, d.cfg.Hosts[i], d.cfg.statusLine(), &a) != nil {
		return // then it is not known
	}
	for _, p := range a.Processes {
		if p.Infohash != d.cfg.InfoHash {
			continue
		}
		d.mu.Lock()
		h := &d.hosts[i]
		if h.held = p.Held; p.Bound != nil {
			h.now = fmt.Sprintf("%s: %s", p.Bound.Kind, p.Bound.Text)
		}
		d.mu.Unlock()
	}
}

// sent asks how much the origin has sent so far; -1 when it does not say.
func (d *deployment) sent(ctx context.Context) int64 {
	if d.cfg.Sent == nil {
		return -1
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
	defer cancel()
	n, err := d.cfg.Sent(ctx)
	if err != nil {
		return -1
	}
	return n
}

// copies is how often the origin sent the release during the deployment; nil
// when that is not known.
func (d *deployment) copies(before, after int64) *float64 {
	if before < 0 || after < before || d.cfg.Bytes <= 0 {
		return nil
	}
	n := float64(after-before) / float64(d.cfg.Bytes)
	return &n
}
