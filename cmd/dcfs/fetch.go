package main

import (
	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/agent"
)

func fetchCommand() *cli.Command {
	return &cli.Command{
		Name:      "fetch",
		Usage:     "fetch a release into a directory, without FUSE",
		ArgsUsage: "RELEASE DIR",
		Description: `
DIR appears under its name only when it is whole, verified and synced. Then the
process seeds on for --linger. The flags are those of mount; --at-end and
--read-timeout have nothing to act on here.

Examples:
  dcfs fetch web-1 /srv/releases/web-1 --origin http://origin:7070
  dcfs fetch web-1 /srv/releases/web-1 --linger 10m --detach-after materialised`,
		Flags: lifeFlags(),
		Action: func(c *cli.Context) error {
			return liveRelease(c, agent.Config{
				Release: c.Args().Get(0),
				Dest:    c.Args().Get(1),
			})
		},
	}
}
