package main

import (
	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/host"
	"dcfs/fs/activate"
)

func forceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "force", Usage: "take a target that is not known to be complete"}
}

// epochFlag makes a swap part of a deployment, see activate.Swap.
func epochFlag(what string) cli.Flag {
	return &cli.Int64Flag{Name: "epoch", DefaultText: "by hand", Usage: what + " `N`, which grows from one to the next"}
}

func activateCommand() *cli.Command {
	return &cli.Command{
		Name:      "activate",
		Usage:     "swap the symlink LINK to TARGET, atomically and durably",
		ArgsUsage: "LINK TARGET",
		Description: `
TARGET must be a complete, verified release directory of this host or a live
mount, unless --force. What LINK led to before is remembered for rollback.

Examples:
  dcfs activate /srv/current /srv/releases/web-2
  dcfs activate /srv/current /opt/handmade --force`,
		Flags: []cli.Flag{jsonFlag(), forceFlag(),
			epochFlag("as the order of deployment")},
		Action: func(c *cli.Context) error {
			link, target := c.Args().Get(0), c.Args().Get(1)
			target, err := absolute(target)
			if err != nil {
				return err
			}
			was, err := activate.Swap(link, target, swapOptions(c))
			if err != nil {
				return err
			}
			return swapResult(c, link, target, was)
		},
	}
}

func swapOptions(c *cli.Context) activate.Options {
	return activate.Options{
		State: c.String("state"),
		Force: c.Bool("force"),
		Epoch: c.Int64("epoch"),
		Allowed: func(target string) error {
			return host.Vouch(c.Context, c.String("state"), target)
		},
	}
}

func swapResult(c *cli.Context, link, target, previous string) error {
	return result(c, struct {
		Schema   int    `json:"schema"`
		Link     string `json:"link"`
		Target   string `json:"target"`
		Previous string `json:"previous"`
	}{schema, link, target, previous}, "%s -> %s (before: %s)", link, target, orDash(previous))
}
