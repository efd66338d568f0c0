package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/origin"
)

func publishCommand() *cli.Command {
	return &cli.Command{
		Name:      "publish",
		Usage:     "make DIR a signed release and hand it to the origin",
		ArgsUsage: "DIR",
		Description: `
Publishing the same content under the same VERSION again succeeds and changes
nothing; other content under a used VERSION is refused (73). With --origin the
release is sent there; without, or with --state, it is written into the origin's
store below --state, as on the origin's own host.

Examples:
  dcfs publish ./build --as web-1 --key /etc/dcfs/release.key
  dcfs publish ./build --as app/1.4.2 --key release.key \
      --origin http://origin:7070 --publish-token-file token --json
  dcfs publish ./build --as web-2 --key release.key --exclude '*.map' --trace web-1.trace`,
		Flags:  publishFlags(),
		Action: publish,
	}
}

// publishFlags are the flags of the commands that publish.
func publishFlags() []cli.Flag {
	return []cli.Flag{
		jsonFlag(), originFlag(),
		&cli.StringFlag{Name: "as", Usage: "`VERSION` of the release: [app/]version (required)"},
		&cli.StringFlag{Name: "key", Usage: "sign with this secret key `FILE` (default: unsigned, which hosts refuse)"},
		&cli.StringFlag{Name: "trace", Usage: "put the files that this trace `FILE` names first (default: none)"},
		&cli.StringSliceFlag{Name: "exclude", Usage: "leave out what matches this `GLOB`; may be repeated (default: none)"},
		&cli.StringFlag{Name: "piece-length", Usage: "piece `SIZE`, a power of two (default: 64KiB to 4MiB, by the release's size)"},
		&cli.StringFlag{Name: "out", Usage: "write the signed metainfo to this `FILE`, too (default: none)"},
		&cli.DurationFlag{Name: "expires", DefaultText: "never", Usage: "hosts refuse the release this `TIME` after publishing, such as 720h"},
		&cli.StringFlag{Name: "publish-token-file", Usage: "`FILE` with the origin's publish token (default: none)"},
		tlsFlag(),
	}
}

func publish(c *cli.Context) error {
	if c.String("as") == "" {
		return usage("publish needs a name for the release", "dcfs publish "+c.Args().First()+" --as VERSION")
	}
	cfg, err := publishConfig(c)
	if err != nil {
		return err
	}
	show := newProgress(c)
	defer show.close()
	cfg.Progress = show.bytes
	if cfg.Log, err = logger(c, show.writer()); err != nil {
		return err
	}
	r, err := origin.Publish(c.Context, cfg)
	if err != nil {
		return err
	}
	show.close()
	return publishResult(c, r)
}

func publishConfig(c *cli.Context) (cfg origin.PublishConfig, err error) {
	cfg = origin.PublishConfig{
		Dir:       c.Args().First(),
		Version:   c.String("as"),
		KeyFile:   c.String("key"),
		State:     c.String("state"),
		TraceFile: c.String("trace"),
		Exclude:   c.StringSlice("exclude"),
		Out:       c.String("out"),
	}
	if err := notNegative(c, "expires"); err != nil {
		return cfg, err
	}
	if d := c.Duration("expires"); d > 0 {
		cfg.Expires = time.Now().Add(d)
	}
	if cfg.Origins, err = publishOrigins(c); err != nil {
		return cfg, err
	}
	if cfg.Identity, err = clientIdentity(c); err != nil {
		return cfg, err
	}
	if cfg.PieceLength, err = sizeOf(c, "piece-length"); err != nil {
		return cfg, err
	}
	cfg.Token, err = readToken("publish token", c.String("publish-token-file"))
	return cfg, err
}

func publishResult(c *cli.Context, r origin.Result) error {
	verb := "published"
	if !r.Changed {
		verb = "already published, nothing changed:"
	}
	return result(c, struct {
		Schema      int    `json:"schema"`
		Version     string `json:"version"`
		Infohash    string `json:"infohash"`
		Files       int    `json:"files"`
		Bytes       int64  `json:"bytes"`
		Pieces      int    `json:"pieces"`
		PieceLength int64  `json:"piece_length"`
		Changed     bool   `json:"changed"`
		Torrent     string `json:"torrent"`
	}{schema, r.Version, r.InfoHash, r.Files, r.Bytes, r.Pieces, r.PieceLength, r.Changed, r.Torrent},
		"%s %s: %d files, %s in %d pieces of %s, infohash %s",
		verb, r.Version, r.Files, size(r.Bytes), r.Pieces, size(r.PieceLength), r.InfoHash)
}

// publishOrigins is where the release goes; none for the store below --state.
// A --state that was typed is meant, whatever origin the host has by default.
func publishOrigins(c *cli.Context) ([]string, error) {
	switch {
	case !isTyped(c, "state"):
		return originsOf(c)
	case isTyped(c, "origin"):
		return nil, usage("publish: --origin and --state are two ways to hand over a release", "only one of the two")
	}
	return nil, nil
}

// readToken reads a token; no file is no token.
func readToken(what, file string) (string, error) {
	if file == "" {
		return "", nil
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w; write it to that file, or give another", what, err)
	}
	return strings.TrimSpace(string(raw)), nil
}
