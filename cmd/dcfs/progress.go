package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"dcfs/cmd/internal/control"
	"dcfs/cmd/internal/fleet"
)

const (
	barInterval  = 200 * time.Millisecond // how often a live bar is refreshed
	jsonInterval = time.Second            // how often a line of JSON is written
	lineInterval = 10 * time.Second       // how often a line is logged without either
)

// progress shows on stderr how far a release has come: a live bar when that is a
// terminal, lines of JSON with --json, log lines else, nothing with --quiet.
type progress struct {
	stderr io.Writer
	quiet  bool
	json   bool
	bars   *mpb.Progress // nil without a terminal
	bar    *mpb.Bar
	once   sync.Once

	mu   sync.Mutex
	last control.Status
	told time.Time // when the last line of JSON was written
}

func newProgress(c *cli.Context) *progress {
	p := &progress{stderr: c.App.ErrWriter, quiet: c.Bool("quiet")}
	if p.quiet || !isTerminal(p.stderr) {
		p.json = c.Bool("json") && !p.quiet
		return p
	}
	p.bars = mpb.New(mpb.WithOutput(p.stderr), mpb.WithWidth(24))
	p.bar = p.bars.New(0, mpb.BarStyle().Lbound("[").Rbound("]"),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string {
			s := p.current()
			return s.Version + " " + string(s.State) + " "
		})),
		mpb.AppendDecorators(
			decor.CountersKibiByte(" % .1f / % .1f"),
			decor.Any(func(decor.Statistics) string { return barText(p.current()) })))
	return p
}

// barText is what stands behind the bar.
func barText(s control.Status) string {
	if s.State == "" || s.State == control.Announced && s.Bytes == 0 { // nothing comes or goes
		return ""
	}
	text := fmt.Sprintf(" ↓ %s/s ↑ %s/s · %d peers", size(s.DownRate), size(s.UpRate), s.Peers)
	if share, ok := originShare(s); ok {
		text += fmt.Sprintf(" · %.0f%% from the origin", 100*share)
	}
	if s.FirstByteMS > 0 {
		text += " · first byte " + lasting(s.FirstByteMS)
	}
	if s.EtaMS > 0 && s.BytesHave < s.Bytes {
		text += " · " + lasting(s.EtaMS) + " left"
	}
	if len(s.Waiting) > 0 {
		text += " · waiting " + waits(s.Waiting)
	}
	return text
}

// originShare is the part of what came from peers that an origin sent.
func originShare(s control.Status) (share float64, ok bool) {
	if s.BytesOrigin+s.BytesPeers == 0 {
		return 0, false
	}
	return float64(s.BytesOrigin) / float64(s.BytesOrigin+s.BytesPeers), true
}

// lasting is a number of milliseconds for people.
func lasting(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// progressLine is a line of progress as JSON.
type progressLine struct {
	Schema   int          `json:"schema"`
	Time     time.Time    `json:"time"`
	Progress progressJSON `json:"progress"`
}

type progressJSON struct {
	Stage       string              `json:"stage"` // a state of the release; reading for publish, deploy for many hosts
	Release     string              `json:"release,omitempty"`
	Bytes       int64               `json:"bytes"`
	BytesHave   int64               `json:"bytes_have"`
	FirstByteMS int64               `json:"first_byte_ms"` // since the start; 0: none yet
	DownRate    int64               `json:"down_rate"`     // bytes a second
	UpRate      int64               `json:"up_rate"`
	Peers       int                 `json:"peers"`
	Seeds       int                 `json:"seeds"`
	OriginShare *float64            `json:"origin_share"` // of what came from peers; null: nothing yet
	Reused      int64               `json:"bytes_reused"`
	EtaMS       int64               `json:"eta_ms"` // 0: not known, or nothing is missing
	Waiting     int                 `json:"waiting"`
	OldestMS    int64               `json:"oldest_wait_ms"`
	Bound       string              `json:"bound,omitempty"` // what bounds it, as in dcfs why
	Reason      string              `json:"reason,omitempty"`
	Hosts       map[fleet.State]int `json:"hosts,omitempty"` // of deploy, by state
}

func progressOf(s control.Status) progressJSON {
	p := progressJSON{
		Stage: string(s.State), Release: s.Version, Bytes: s.Bytes, BytesHave: s.BytesHave, FirstByteMS: s.FirstByteMS,
		DownRate: s.DownRate, UpRate: s.UpRate, Peers: s.Peers, Seeds: s.Seeds, Reused: s.BytesReused,
		EtaMS: s.EtaMS, Waiting: len(s.Waiting), Reason: s.Reason,
	}
	if share, ok := originShare(s); ok {
		p.OriginShare = &share
	}
	if s.Bound != nil {
		p.Bound = s.Bound.Kind
	}
	for _, w := range s.Waiting {
		p.OldestMS = max(p.OldestMS, w.AgeMS)
	}
	if p.Stage == "" {
		p.Stage = "reading"
	}
	return p
}

// tell writes a line of JSON. It is for people's programs: one that no longer
// listens is no reason to stop.
func (p *progress) tell(line progressJSON) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = time.Now()
	_ = printJSON(p.stderr, progressLine{schema, p.told.UTC(), line})
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
	if p.json {
		p.tell(progressOf(s))
	}
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
	switch {
	case p.bars != nil:
		interval = barInterval
	case p.json:
		interval = jsonInterval
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
			if p.bars == nil && !p.json {
				logProgress(log, s)
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func logProgress(log *slog.Logger, s control.Status) {
	args := []any{"release", s.Version, "state", s.State,
		"have", percent(s.BytesHave, s.Bytes), "of", size(s.Bytes),
		"down", size(s.DownRate) + "/s", "up", size(s.UpRate) + "/s",
		"peers", s.Peers, "waiting", len(s.Waiting)}
	if share, ok := originShare(s); ok {
		args = append(args, "from_origin", fmt.Sprintf("%.0f%%", 100*share), "first_byte", lasting(s.FirstByteMS))
	}
	if s.EtaMS > 0 && s.BytesHave < s.Bytes {
		args = append(args, "left", lasting(s.EtaMS))
	}
	log.Info("progress", args...)
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
	p.mu.Lock()
	soon := time.Since(p.told) < jsonInterval && done < total
	p.mu.Unlock()
	if p.json && soon {
		return
	}
	p.update(control.Status{Traffic: control.Traffic{Bytes: total, BytesHave: done}})
}
