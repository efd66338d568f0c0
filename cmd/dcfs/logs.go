package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/urfave/cli/v2"
)

// logger makes the one logger of the process, from --log-format, --log-level
// and --quiet. It writes to w: stderr, or what shares it with a live bar.
func logger(c *cli.Context, w io.Writer) (*slog.Logger, error) {
	format, err := oneOf(c, "log-format", "text", "json")
	if err != nil {
		return nil, err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, usage(fmt.Sprintf("--log-level: %q is no level", c.String("log-level")),
			"--log-level debug, info, warn or error")
	}
	if c.Bool("quiet") {
		level = max(level, slog.LevelError)
	}
	opts := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), nil
}
