package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/control"
)

const (
	askTimeout    = time.Second // for one process; one that hangs takes longer
	watchInterval = time.Second
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show every dcfs process on this host",
		Description: `
Asks all processes at once. One that does not answer within a second is
reported on stderr, and the exit code is 75.

Examples:
  dcfs status
  dcfs status --watch
  dcfs status --json | jq -r '.processes[] | "\(.version) \(.state)"'`,
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"},
				Usage: "ask again every second until interrupted; with --json one line each"},
		},
		Action: status,
	}
}

// statusReport is what `status --json` prints.
type statusReport struct {
	Schema    int              `json:"schema"`
	Processes []control.Status `json:"processes"`
	Errors    []string         `json:"errors,omitempty"`
}

func status(c *cli.Context) error {
	if !c.Bool("watch") {
		return statusOnce(c)
	}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		if !c.Bool("json") && isTerminal(c.App.Writer) {
			fmt.Fprint(c.App.Writer, "\x1b[H\x1b[2J") // home, clear
		}
		if err := statusOnce(c); err != nil {
			complain(c.App.ErrWriter, err)
		}
		select {
		case <-tick.C:
		case <-c.Context.Done():
			return nil // being interrupted is how watching ends
		}
	}
}

func statusOnce(c *cli.Context) error {
	all, errs := control.Collect(c.Context, c.String("run"), askTimeout)
	r := statusReport{Schema: schema, Processes: append([]control.Status{}, all...)}
	for _, err := range errs {
		r.Errors = append(r.Errors, err.Error())
	}
	var err error
	switch {
	case c.Bool("json"):
		err = printJSON(c.App.Writer, r)
	case len(all) > 0 || len(errs) == 0: // else there are some, and none that answers
		err = statusTable(legible{c.App.Writer}, all)
	}
	if err == nil && len(errs) > 0 {
		for _, e := range errs[1:] {
			complain(c.App.ErrWriter, fmt.Errorf("status: %w", e))
		}
		err = fmt.Errorf("status: %w", errs[0])
	}
	return err
}

func statusTable(w io.Writer, all []control.Status) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "no dcfs process runs on this host")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "PID\tRELEASE\tSTATE\tFOR\tHAVE\tSIZE\tDOWN\tUP\tPEERS\tSEEDS\tWAITING\tCACHE\tAT")
	for _, s := range all {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s/s\t%s/s\t%d\t%d\t%s\t%s/%s\t%s\n",
			s.PID, orDash(s.Version), s.State, age(s.StateSince), percent(s.BytesHave, s.Bytes), size(s.Bytes),
			size(s.DownRate), size(s.UpRate), s.Peers, s.Seeds, waits(s.Waiting),
			size(s.Cache.Used), size(s.Cache.Budget), orDash(where(s)))
		if s.LingerWhy != "" {
			fmt.Fprintf(t, "\tseeds on %s\n", s.LingerWhy)
		}
		if s.Reason != "" {
			fmt.Fprintf(t, "\t%s\n", s.Reason)
		}
	}
	return t.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func where(s control.Status) string {
	if s.Mountpoint != "" && !s.State.Reached(control.Materialised) {
		return s.Mountpoint
	}
	return s.Dest
}

func age(since time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return time.Since(since).Round(time.Second).String()
}

// waits is how many pieces are waited for, and since when the first is.
func waits(ws []control.Wait) string {
	var oldest int64
	for _, w := range ws {
		oldest = max(oldest, w.AgeMS)
	}
	if len(ws) == 0 {
		return "-"
	}
	return fmt.Sprintf("%d (%s)", len(ws), (time.Duration(oldest) * time.Millisecond).Round(time.Millisecond))
}

// percent never says 100% before all is there.
func percent(have, all int64) string {
	if all <= 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", int64(float64(have)/float64(all)*100))
}
