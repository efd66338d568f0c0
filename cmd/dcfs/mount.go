package main

import (
	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/agent"
)

func mountCommand() *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "mount a release at once, fill it, and leave a real copy",
		ArgsUsage: "RELEASE MOUNTPOINT",
		Description: `
The tree is there as soon as its metadata is; a read fetches what it needs ahead
of the rest. When all has come, a real copy stands in --dest, --activate's link
is swapped to it, and the process seeds on for --linger and ends as --at-end
says. Runs in the foreground unless --detach-after is given.

Examples:
  dcfs mount web-1 /releases/web-1 --origin http://origin:7070
  dcfs mount web-1 /releases/web-1 --dest /srv/releases/web-1 \
      --activate /srv/current --linger 10m --detach-after materialised
  dcfs mount ./web-1.torrent /mnt --peer 10.0.0.7:7072 --up 50MiB`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "dest", Usage: "the real copy's `DIR`, made by this command, or MOUNTPOINT itself (default: STATE/releases/VERSION)"},
			&cli.BoolFlag{Name: "survive", Value: true, Usage: "a parent process keeps the mount: if the one that serves it is killed, another takes over and readers only wait"},
			&cli.StringFlag{Name: "trace", Usage: "fetch what this trace `FILE` names before the rest, or \"none\" (default: the origin's trace, if it has one)"},
			&cli.StringFlag{Name: "trace-token-file", Usage: "`FILE` with the token of the origin's --trace-token-file: give it a trace of what is read first here (default: none)"},
			&cli.BoolFlag{Name: "lazy", Usage: "fetch only what is read, a little ahead of it, and what a trace names; the copy stands when all is here"},
			&cli.BoolFlag{Name: "nosuid", Usage: "ignore setuid, setgid and file capabilities in the mount"},
		}, lifeFlags()...),
		Action: func(c *cli.Context) error {
			cfg := agent.Config{
				Release:    c.Args().Get(0),
				Mountpoint: c.Args().Get(1),
				Dest:       c.String("dest"),
				NoSUID:     c.Bool("nosuid"),
				Lazy:       c.Bool("lazy"),
			}
			var err error
			if cfg.Trace = c.String("trace"); cfg.Trace != agent.NoTrace {
				if cfg.Trace, err = absolute(cfg.Trace); err != nil {
					return err
				}
			}
			if cfg.TraceToken, err = readToken("trace token", c.String("trace-token-file")); err != nil {
				return err
			}
			return liveRelease(c, cfg)
		},
	}
}
