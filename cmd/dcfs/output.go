package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"dcfs/cmd/internal/catalog"
	"dcfs/cmd/internal/config"
)

// schema is the version of all JSON that the commands print.
const schema = 1

// printJSON writes a result as one line of JSON.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// result prints v as JSON when --json asks for it, else the text.
func result(c *cli.Context, v any, format string, args ...any) error {
	if c.Bool("json") {
		return printJSON(c.App.Writer, v)
	}
	_, err := fmt.Fprintf(legible{c.App.Writer}, format+"\n", args...)
	return err
}

// legible writes text for people. What it holds of other hosts, processes and file
// names must not move a terminal's cursor, or worse.
type legible struct{ io.Writer }

// Write takes whole characters.
func (l legible) Write(p []byte) (int, error) {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '\uFFFD'
		}
		return r
	}, string(p))
	if _, err := io.WriteString(l.Writer, text); err != nil {
		return 0, err
	}
	return len(p), nil
}

// isTerminal reports whether w is a terminal that can be redrawn.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// size is a number of bytes for people.
func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// sizeOf reads a flag that holds a size; an empty one is 0.
func sizeOf(c *cli.Context, flag string) (int64, error) {
	return quantity(c, flag, config.ParseSize)
}

// rateOf reads a flag that holds a rate; an empty one is 0, no limit.
func rateOf(c *cli.Context, flag string) (int64, error) {
	return quantity(c, flag, config.ParseRate)
}

func quantity(c *cli.Context, flag string, parse func(string) (int64, error)) (int64, error) {
	if c.String(flag) == "" {
		return 0, nil
	}
	n, err := parse(c.String(flag))
	if err != nil {
		return 0, usage(fmt.Sprintf("--%s: %v", flag, err), helpOf(c))
	}
	return n, nil
}

// originsOf reads --origin: base URLs, each once. Names of SRV records are looked
// up.
func originsOf(c *cli.Context) ([]string, error) {
	origins, err := namedOrigins(c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.Context, lookupTime)
	defer cancel()
	return catalog.Expand(ctx, origins)
}

const lookupTime = 5 * time.Second

// namedOrigins reads --origin as it stands.
func namedOrigins(c *cli.Context) ([]string, error) {
	origins, err := catalog.ParseOrigins(c.StringSlice("origin")...)
	if err != nil {
		return nil, fmt.Errorf("--origin: %w", err)
	}
	return origins, nil
}

// webSeedsOf reads --web-seed.
func webSeedsOf(c *cli.Context) ([]string, error) {
	if len(c.StringSlice("web-seed")) == 0 {
		return nil, nil
	}
	seeds, err := config.ParseWebSeeds(strings.Join(c.StringSlice("web-seed"), ","))
	if err != nil {
		return nil, usage(fmt.Sprintf("--web-seed: %v", err), helpOf(c))
	}
	return seeds, nil
}

// listenOf reads a flag that holds an address to listen on; it may be empty.
func listenOf(c *cli.Context, flag string) (string, error) {
	if c.String(flag) == "" {
		return "", nil
	}
	addr, err := config.ParseListen(c.String(flag))
	if err != nil {
		return "", usage(fmt.Sprintf("--%s: %v", flag, err), helpOf(c))
	}
	return addr, nil
}

func helpOf(c *cli.Context) string { return "dcfs " + c.Command.FullName() + " --help" }

// oneOf checks a flag that takes one of a few words.
func oneOf(c *cli.Context, flag string, words ...string) (string, error) {
	got := c.String(flag)
	for _, w := range words {
		if got == w {
			return got, nil
		}
	}
	return "", usage(fmt.Sprintf("--%s: %q is not one of %s", flag, got, strings.Join(words, ", ")),
		fmt.Sprintf("--%s %s", flag, words[0]))
}

// absolute resolves a path against the working directory now, before anything
// changes it. Empty stays empty.
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}

// commas splits the values of a flag that may be repeated or hold a list.
func commas(values []string) (out []string) {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

// checkPeers checks --max-peers.
func checkPeers(c *cli.Context) error {
	if n := c.Int("max-peers"); n < 0 || n > config.MaxCount {
		return usage(fmt.Sprintf("--max-peers: %d is no number from 0 to %d", n, config.MaxCount), helpOf(c))
	}
	return nil
}

// notNegative checks flags that hold durations or counts.
func notNegative(c *cli.Context, flags ...string) error {
	for _, f := range flags {
		if c.Duration(f) < 0 || c.Int(f) < 0 {
			return usage(fmt.Sprintf("--%s is negative", f), helpOf(c))
		}
	}
	return nil
}
