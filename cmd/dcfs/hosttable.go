package main

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/fleet"
)

const (
	tableInterval = 200 * time.Millisecond
	tableRows     = 20
)

// hostTable shows a deployment while it runs: on a terminal a table that is
// redrawn, of the hosts that are not done; elsewhere a log line for each change
// and a summary every ten seconds, or with --json every second as JSON.
type hostTable struct {
	out   io.Writer          // nil where there is no terminal
	tell  func(progressJSON) // nil without --json
	log   *slog.Logger
	quiet bool
	start time.Time

	mu    sync.Mutex
	last  time.Time
	lines int // drawn, and to be drawn over
}

func newHostTable(c *cli.Context, log *slog.Logger) *hostTable {
	t := &hostTable{log: log, quiet: c.Bool("quiet"), start: time.Now()}
	if isTerminal(c.App.ErrWriter) && !t.quiet {
		t.out, t.log = c.App.ErrWriter, slog.New(slog.DiscardHandler)
	}
	if t.out == nil && c.Bool("json") && !t.quiet {
		t.tell = newProgress(c).tell
	}
	return t
}

// show is called after every change.
func (t *hostTable) show(r fleet.Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	switch {
	case t.quiet:
	case t.out != nil && now.Sub(t.last) >= tableInterval:
		t.last = now
		t.draw(r)
	case t.tell != nil && now.Sub(t.last) >= jsonInterval:
		t.last = now
		t.tell(progressJSON{Stage: "deploy", Release: r.Version, Hosts: r.Counts})
	case t.tell != nil:
	case t.out == nil && now.Sub(t.last) >= lineInterval:
		t.last = now
		t.log.Info("progress", "hosts", deploySummary(r))
	}
}

func (t *hostTable) draw(r fleet.Report) {
	t.erase()
	fmt.Fprintf(t.out, "%s  %s  %s\n", r.Version, time.Since(t.start).Round(time.Second), deploySummary(r))
	t.lines = 1
	for _, h := range r.Hosts {
		if h.State == fleet.Done || h.State == fleet.Pending {
			continue
		}
		if t.lines > tableRows {
			break
		}
		fmt.Fprintf(legible{t.out}, "  %-24.24s %-10s %6.1fs %.80s\n", h.Name, h.State, h.At.Seconds(), h.Error)
		t.lines++
	}
}

func (t *hostTable) erase() {
	if t.lines > 0 {
		fmt.Fprintf(t.out, "\x1b[%dA\x1b[J", t.lines) // up, clear to the end
	}
	t.lines = 0
}

// close takes the table away; the result says it all.
func (t *hostTable) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.out != nil {
		t.erase()
	}
}
