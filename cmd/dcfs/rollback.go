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
leads back to the start.

Examples:
  dcfs rollback /srv/current`,
		Flags: []cli.Flag{jsonFlag(), forceFlag()},
		Action: func(c *cli.Context) error {
			link := c.Args().First()
			now, was, err := activate.Rollback(link, swapOptions(c))
			if err != nil {
				return err
			}
			return swapResult(c, link, now, was)
		},
	}
}
