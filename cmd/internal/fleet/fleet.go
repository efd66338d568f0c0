// Package fleet brings one release to many hosts in two phases: all fetch it,
// and only when enough of them have a whole, verified copy, the symlinks of all
// of these are swapped. When too few can swap, or too many are not healthy
// afterwards, every host goes back to what it had.
//
// What it knows of a host it learned by running `dcfs` there, through a command
// such as ssh. It must never swap a link before the quorum has the copy, leave
// hosts on the new release after it reported a failure without naming them, or
// take a host's silence for success.
package fleet

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

var (
	// ErrConfig says that a deployment cannot be meant as it was given.
	ErrConfig = errors.New("deploy")
	// ErrFailed says that the release is not in use: what was swapped has gone
	// back, but for the hosts that are named.
	ErrFailed = errors.New("the deployment failed")
)

// Runner runs a shell command line on a host and returns its standard output.
// An error holds the end of its standard error. It must end when ctx does.
type Runner interface {
	Run(ctx context.Context, host, command string) (stdout []byte, err error)
}

// Config is one deployment.
type Config struct {
	Version  string
	InfoHash string // 40 hex digits; a host that has other content is not ready
	Hosts    []string
	Bytes    int64 // of the release
	Rates    Rates // of the links, for the report
	// Sent asks how many bytes of the release the origin has sent to peers so
	// far, for the report; may be nil.
	Sent func(context.Context) (int64, error)

	Mount   string   // directory on each host that holds a mountpoint for each version
	Dest    string   // directory on each host that holds a copy of each version
	Current string   // symlink on each host
	Dcfs    string   // the program on the hosts
	Flags   []string // further flags of `dcfs mount` on the hosts

	Parallel     int           // hosts that are spoken to at the same time
	Quorum       int           // hosts that have to be ready before any is swapped
	MaxUnhealthy int           // hosts whose health check may fail
	Health       string        // shell command on each host after the swap; "" for none
	Timeout      time.Duration // for the copies
	Straggler    time.Duration // how long hosts are waited for once the quorum is ready
	CallTimeout  time.Duration // for one short command on one host
	HealthTime   time.Duration // until a health check has to succeed

	Runner   Runner
	Log      *slog.Logger
	OnChange func(Report) // called after every change of a host, one call at a time; may be nil
}

// Deploy does it and reports, also when it fails. Ending ctx before the first
// swap leaves every host as it was; afterwards it takes the swaps back, for
// which it takes its own time. The error wraps ErrFailed, or ctx's cause.
func Deploy(ctx context.Context, cfg Config) (Report, error) {
	d, err := newDeployment(cfg)
	if err != nil {
		return Report{}, err
	}
	before := d.sent(ctx)
	d.start = time.Now()
	err = d.run(ctx)
	after := d.sent(ctx)
	r := d.report(err)
	r.Copies = d.copies(before, after)
	return r, err
}

// deployment is the state of one Deploy.
type deployment struct {
	cfg   Config
	epoch int64
	nonce int64 // of the epoch, see learn
	start time.Time
	back  float64 // seconds that taking the swaps back took

	mu    sync.Mutex
	hosts []Host
}

func newDeployment(cfg Config) (*deployment, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	d := &deployment{cfg: cfg, start: time.Now(), nonce: rand.Int64N(epochUnit)}
	for _, name := range cfg.Hosts {
		d.hosts = append(d.hosts, Host{Name: name, State: Pending})
	}
	return d, nil
}

func (d *deployment) run(ctx context.Context) error {
	if err := d.fetch(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := d.activate(ctx)
	if err == nil {
		return nil
	}
	// Whoever wants an end gets one, and not half a fleet on each release.
	start := time.Now()
	d.takeBack(context.WithoutCancel(ctx))
	d.back = time.Since(start).Seconds()
	return err
}

// each runs do for every host that want accepts, Parallel at the same time,
// and waits for all of them. A failure of one host is no failure of the rest.
func (d *deployment) each(want func(Host) bool, do func(i int)) {
	var group errgroup.Group
	group.SetLimit(d.cfg.Parallel)
	for i, h := range d.snapshot() {
		if want(h) {
			group.Go(func() error { do(i); return nil })
		}
	}
	_ = group.Wait() // do returns no error
}

// set changes what is known of a host, and tells.
func (d *deployment) set(i int, change func(*Host)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.hosts[i]
	change(&d.hosts[i])
	h := &d.hosts[i]
	if h.State != before.State {
		h.At = time.Since(d.start)
		switch h.State {
		case Ready:
			h.Ready = h.At.Seconds()
		case Swapped:
			h.Swap = h.At.Seconds()
		}
		d.logChange(*h)
	}
	if d.cfg.OnChange != nil {
		d.cfg.OnChange(d.reportLocked())
	}
}

func (d *deployment) logChange(h Host) {
	if d.cfg.Log == nil {
		return
	}
	level, args := slog.LevelInfo, []any{"host", h.Name, "state", h.State}
	if h.Error != "" {
		level, args = slog.LevelWarn, append(args, "cause", h.Error)
	}
	d.cfg.Log.Log(context.Background(), level, "host", args...)
}

func (d *deployment) snapshot() []Host {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Host(nil), d.hosts...)
}

func (d *deployment) count(want func(Host) bool) (n int) {
	for _, h := range d.snapshot() {
		if want(h) {
			n++
		}
	}
	return n
}
