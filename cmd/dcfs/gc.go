package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/gc"
)

func gcCommand() *cli.Command {
	return &cli.Command{
		Name:      "gc",
		Usage:     "remove old materialised releases, and what dead processes left",
		ArgsUsage: "DIR",
		Description: `
DIR is where the releases stand, at any depth. Of each app (the part of VERSION
before the last slash) the --keep newest stay, a place of which goes to what a
rollback would lead to. Never removed is what a symlink leads to (one that
dcfs activate made, or any in DIR, beside it or between DIR and the release),
what is mounted, and what a process uses: its working directory, root, program,
open and mapped files. Directories without a receipt are not touched.

Also removed: mounts and sockets of dead dcfs processes, what an earlier gc or
repair left, and, older than --stale-after, downloads that nobody resumed,
metainfo and receipts of releases that are not here.

Examples:
  dcfs gc /srv/releases --keep 3 --dry-run
  dcfs gc /var/lib/dcfs/releases --keep 2 --json | jq -r '.releases[] | "\(.action) \(.path)"'`,
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.IntFlag{Name: "keep", DefaultText: "none; it has to be given", Usage: "keep the `N` newest releases of each app; 0 keeps only what is in use"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be removed, and why, and remove nothing"},
			&cli.DurationFlag{Name: "stale-after", Value: 24 * time.Hour, Usage: "give up a download that nobody has resumed for this `TIME`"},
		},
		Action: collectGarbage,
	}
}

// gcReport is what `gc --json` prints.
type gcReport struct {
	Schema    int           `json:"schema"`
	Dir       string        `json:"dir"`
	Keep      int           `json:"keep"`
	DryRun    bool          `json:"dry_run"`
	Releases  []gc.Release  `json:"releases"`
	Leftovers []gc.Leftover `json:"leftovers"`
}

func collectGarbage(c *cli.Context) error {
	if !c.IsSet("keep") {
		return usage("gc: --keep is not given: how many releases shall stay?", "dcfs gc "+c.Args().First()+" --keep 3 --dry-run")
	}
	if err := notNegative(c, "keep", "stale-after"); err != nil {
		return err
	}
	dir, err := absolute(c.Args().First())
	if err != nil {
		return err
	}
	log, err := logger(c, c.App.ErrWriter)
	if err != nil {
		return err
	}
	cfg := gc.Config{
		Dir: dir, Keep: c.Int("keep"), StaleAfter: c.Duration("stale-after"),
		State: c.String("state"), RunDir: c.String("run"), DryRun: c.Bool("dry-run"), Log: log,
	}
	report, err := gc.Run(c.Context, cfg)
	if err != nil && len(report.Releases)+len(report.Leftovers) == 0 {
		return err // nothing was looked at
	}
	if perr := printGC(c, cfg, report); err == nil {
		err = perr
	}
	return err
}

func printGC(c *cli.Context, cfg gc.Config, r gc.Report) error {
	if c.Bool("json") {
		return printJSON(c.App.Writer, gcReport{schema, cfg.Dir, cfg.Keep, cfg.DryRun, r.Releases, r.Leftovers})
	}
	return gcTable(legible{c.App.Writer}, r)
}

// gcTable prints one line per thing: what becomes of it, what it is, why.
func gcTable(w io.Writer, r gc.Report) error {
	if len(r.Releases)+len(r.Leftovers) == 0 {
		_, err := fmt.Fprintln(w, "no release stands there, and nothing is left of dead processes")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, x := range r.Releases {
		gcLine(t, x.Outcome, orDash(x.Version))
	}
	for _, x := range r.Leftovers {
		gcLine(t, x.Outcome, "("+x.Kind+")")
	}
	return t.Flush()
}

func gcLine(w io.Writer, o gc.Outcome, what string) {
	verb := o.Action
	switch {
	case o.Done:
		verb = "removed"
	case o.Error != "":
		verb = "failed"
	case o.Action == gc.Remove:
		verb = "would remove"
	}
	why := strings.Join(o.Reasons, "; ")
	if o.Error != "" {
		why = o.Error
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", verb, what, o.Path, why)
}
