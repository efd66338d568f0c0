package main

import (
	"github.com/urfave/cli/v2"

	"dcfs/fs/activate"
)

func rollbackCommand() *cli.Command {
	return &cli.Command{
		Name:      "rollback",
		Usage:     "swap the symlink LINK back to what it led to before",
		ArgsUsage: "LINK",
		Description: `
The previous target must still be complete, unless --force. Rolling back twice
leads back to the start. With --epoch it takes back what that deployment did, if
it is still so, and refuses what may still come of it.

Examples:
  dcfs rollback /srv/current`,
		Flags: []cli.Flag{jsonFlag(), forceFlag(),
			epochFlag("take back the order of deployment")},
		Action: func(c *cli.Context) error {
			link := c.Args().First()
			back := activate.Rollback
			if c.Int64("epoch") != 0 {
				back = activate.TakeBack
			}
			now, was, err := back(link, swapOptions(c))
			if err != nil {
				return err
			}
			return swapResult(c, link, now, was)
		},
	}
}
