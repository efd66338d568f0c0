package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"dcfs/cmd/internal/control"
)

const (
	barInterval  = 200 * time.Millisecond // how often a live bar is refreshed
	lineInterval = 10 * time.Second       // how often a line is logged without one
)

// progress shows how far a release has come: a live bar when stderr is a
// terminal, log lines when not, nothing with --quiet.
type progress struct {
	stderr io.Writer
	quiet  bool
	bars   *mpb.Progress // nil without a terminal
	bar    *mpb.Bar
	once   sync.Once

	mu   sync.Mutex
	last control.Status
}

func newProgress(c *cli.Context) *progress {
	p := &progress{stderr: c.App.ErrWriter, quiet: c.Bool("quiet")}
	if p.quiet || !isTerminal(p.stderr) {
		return p
	}
	p.bars = mpb.New(mpb.WithOutput(p.stderr), mpb.WithWidth(40))
	p.bar = p.bars.New(0, mpb.BarStyle().Lbound("[").Rbound("]"),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string {
			s := p.current()
			return s.Version + " " + string(s.State) + " "
		})),
		mpb.AppendDecorators(
			decor.CountersKibiByte(" % .1f / % .1f"),
			decor.Any(func(decor.Statistics) string {
				s := p.current()
				if s.State == "" { // no release's life: nothing comes or goes
					return ""
				}
				return " ↓ " + size(s.DownRate) + "/s ↑ " + size(s.UpRate) + "/s"
			})))
	return p
}

// writer is where log lines go, so that they do not run through the bar.
func (p *progress) writer() io.Writer {
	if p.bars != nil {
		return p.bars
	}
	return p.stderr
}

func (p *progress) current() control.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// update shows a status.
func (p *progress) update(s control.Status) {
	p.mu.Lock()
	p.last = s
	p.mu.Unlock()
	if p.bar != nil && s.Bytes > 0 {
		p.bar.SetTotal(s.Bytes, false)
		p.bar.SetCurrent(s.BytesHave)
	}
}

// poll asks the process behind a control socket until the returned function is
// called, which waits for the last answer to be shown.
func (p *progress) poll(ctx context.Context, socket string, log *slog.Logger) (stop func()) {
	if p.quiet {
		return func() {}
	}
	interval := lineInterval
	if p.bars != nil {
		interval = barInterval
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			s, err := control.Ask(ctx, socket, askTimeout)
			if err != nil {
				continue // not there yet, or busy: the state lines say enough
			}
			p.update(s)
			if p.bars == nil {
				logProgress(log, s)
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func logProgress(log *slog.Logger, s control.Status) {
	log.Info("progress", "release", s.Version, "state", s.State,
		"have", percent(s.BytesHave, s.Bytes), "of", size(s.Bytes),
		"down", size(s.DownRate)+"/s", "up", size(s.UpRate)+"/s",
		"peers", s.Peers, "waiting", len(s.Waiting))
}

// close takes the bar away. It may be called more than once.
func (p *progress) close() {
	p.once.Do(func() {
		if p.bars != nil {
			p.bar.Abort(false)
			p.bars.Wait()
		}
	})
}

// bytes shows the progress of work that is no release's life, such as reading
// a directory. Calls come one at a time.
func (p *progress) bytes(done, total int64) {
	p.update(control.Status{Traffic: control.Traffic{Bytes: total, BytesHave: done}})
}
