package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/control"
	"dcfs/fs/durable"
)

// whyTimeout bounds one question; a process that gets little CPU may be what
// it is about.
const whyTimeout = 5 * time.Second

func whyCommand() *cli.Command {
	return &cli.Command{
		Name:      "why",
		Usage:     "what a file in a mount, or in a copy that is being made, waits for",
		ArgsUsage: "PATH",
		Description: `
Names the pieces that hold the file, where each came from or could come from,
who reads and since when, and what bounds the transfer now: nobody has it, all
that have it choke, --down, a peer that sends nothing, the disk, or the CPU.
PATH need not exist yet: below --dest it shows only when the release is whole.

Examples:
  dcfs why /releases/web-1/lib/big.so
  dcfs why /srv/releases/web-1/lib/big.so --json | jq -r .bound.kind`,
		Flags:  []cli.Flag{jsonFlag()},
		Action: why,
	}
}

func why(c *cli.Context) error {
	path, err := absolute(c.Args().First())
	if err != nil {
		return err
	}
	at, err := findProcess(c, path)
	if err != nil {
		return err
	}
	answer, err := control.AskWhy(c.Context, control.SocketPath(c.String("run"), at.PID), at.file, whyTimeout)
	if err != nil {
		return fmt.Errorf("why %s: %w", path, err)
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, answer)
	}
	return whyText(legible{c.App.Writer}, answer)
}

// errNoProcess is the kind of a PATH that no process of this host serves.
var errNoProcess = errors.New("no dcfs process serves or fills it")

// serving is the process behind a path, and the path inside its release.
type serving struct {
	control.Status
	file string
}

// findProcess finds who serves a path: as it is written, or where its symlinks
// lead.
func findProcess(c *cli.Context, path string) (serving, error) {
	all, errs := control.Collect(c.Context, c.String("run"), whyTimeout)
	if s, ok := match(all, path); ok {
		return s, nil
	}
	if resolved, ok := resolve(c.Context, path); ok {
		if s, ok := match(all, resolved); ok {
			return s, nil
		}
	}
	if len(errs) > 0 {
		return serving{}, fmt.Errorf("why %s: %w", path, errs[0])
	}
	return serving{}, hinted{fmt.Errorf("why %s: %w", path, errNoProcess), "dcfs status, which lists the mounts and copies of this host"}
}

// match finds the process whose mount, or copy, is the closest above path.
func match(all []control.Status, path string) (found serving, ok bool) {
	longest := 0
	for _, s := range all {
		for _, dir := range []string{s.Mountpoint, s.Dest} {
			if rest, below := under(path, dir); below && len(dir) > longest {
				longest, found, ok = len(dir), serving{s, rest}, true
			}
		}
	}
	return found, ok
}

func under(path, dir string) (rest string, ok bool) {
	if dir == "" || path == dir {
		return ".", path == dir && dir != ""
	}
	return strings.CutPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// resolve follows the symlinks of a path. A mount whose process hangs must not
// hang this one: after a second it is left alone.
func resolve(ctx context.Context, path string) (string, bool) {
	done := make(chan string, 1)
	go func() { // ends with the filesystem's answer, or with this process
		resolved, err := filepath.EvalSymlinks(path)
		if err != nil {
			if resolved, err = durable.Resolve(path); err != nil { // what is not there yet
				resolved = path
			}
		}
		done <- resolved
	}()
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case resolved := <-done:
		return resolved, true
	case <-timer.C:
	case <-ctx.Done():
	}
	return "", false
}

func whyText(out io.Writer, a control.Why) error {
	fmt.Fprintf(out, "%s of release %s (%s, process %d)\n", a.Path, a.Version, a.State, a.PID)
	fmt.Fprintf(out, "%s in %d pieces of %s: %d here, %d missing, %d blocked reads\n",
		size(a.Bytes), a.PiecesTotal, size(a.PieceLength), a.PiecesHave, a.PiecesTotal-a.PiecesHave, a.Readers)
	fmt.Fprintf(out, "bound by %s: %s\n", a.Bound.Kind, a.Bound.Text)
	if a.Bound.Try != "" {
		fmt.Fprintf(out, "try: %s\n", a.Bound.Try)
	}
	if len(a.Pieces) > 0 {
		fmt.Fprintln(out)
	}
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	if len(a.Pieces) > 0 {
		fmt.Fprintln(t, "PIECE\tSTATE\tFROM\tHELD BY\tASKED OF\tREAD")
	}
	for _, p := range a.Pieces {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", p.Piece, p.State, list(p.From), list(p.Holders), asked(p.Asked), readers(p))
	}
	if a.LeftOut > 0 {
		fmt.Fprintf(t, "…\t%d more pieces\n", a.LeftOut)
	}
	if len(a.Links) > 0 {
		fmt.Fprintln(t, "\nPEER\tHAS OF IT\tTAKES REQUESTS\tOWES\tLAST BLOCK\tCLIENT")
	}
	for _, l := range a.Links {
		takes := "yes"
		if l.Choking {
			takes = "no"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\n", l.Addr, l.Holds, takes, owes(l), ago(l.Sent), orDash(l.Client))
	}
	return t.Flush()
}

func list(words []string) string { return orDash(strings.Join(words, " ")) }

func asked(all []control.Asked) string {
	var out []string
	for _, a := range all {
		out = append(out, fmt.Sprintf("%s for %s", a.Addr, millis(a.AgeMS)))
	}
	return list(out)
}

func readers(p control.Piece) string {
	if p.Readers == 0 {
		return "-"
	}
	return fmt.Sprintf("%d for %s", p.Readers, millis(p.AgeMS))
}

func owes(l control.Link) string {
	if l.Asked == 0 {
		return "-"
	}
	return fmt.Sprintf("%s blocks since %s", humanize.Comma(int64(l.Asked)), ago(l.Since))
}

func ago(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return millis(time.Since(*t).Milliseconds()) + " ago"
}

func millis(n int64) string {
	return (time.Duration(n) * time.Millisecond).Round(100 * time.Millisecond).String()
}
