package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/host"
	"dcfs/fs/release"
	"dcfs/fs/verify"
)

// errDiffers says that verify found differences.
var errDiffers = errors.New("the directory is not the release")

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "re-read DIR against the signed release",
		ArgsUsage: "RELEASE DIR",
		Description: `
Compares every entry: content, modes, owners, times, links, xattrs. Prints each
difference; the exit code is 65 when there is any. Without an origin, what this
host has kept of the release is used.

Examples:
  dcfs verify web-1 /srv/releases/web-1 --origin http://origin:7070
  dcfs verify ./web-1.torrent /srv/current/ --json`,
		Flags: append([]cli.Flag{jsonFlag(), originFlag()}, trustedFlags()...),
		Action: func(c *cli.Context) error {
			rel, err := verifyAgainst(c)
			if err != nil {
				return err
			}
			return verifyDir(c, rel, c.Args().Get(1))
		},
	}
}

func verifyAgainst(c *cli.Context) (*release.Release, error) {
	origins, err := originsOf(c)
	if err != nil {
		return nil, err
	}
	return host.Release(c.Context, host.Question{
		Word: c.Args().Get(0), Dir: c.Args().Get(1), Origins: origins,
		State: c.String("state"), Trusted: c.String("trusted"), Unsigned: c.Bool("insecure-unsigned"),
	})
}

// maxListed bounds the differences in one JSON answer; all are counted.
const maxListed = 10_000

func verifyDir(c *cli.Context, rel *release.Release, dir string) error {
	count, listed := 0, []verify.Difference{}
	err := verify.Compare(c.Context, rel.Tree, dir, verify.Options{Unprivileged: verify.Unprivileged()},
		func(d verify.Difference) error {
			count++
			if c.Bool("json") {
				if len(listed) < maxListed {
					listed = append(listed, d)
				}
				return nil
			}
			_, err := fmt.Fprintln(c.App.Writer, d)
			return err
		})
	if err != nil {
		return err
	}
	err = result(c, struct {
		Schema      int                 `json:"schema"`
		Version     string              `json:"version"`
		Dir         string              `json:"dir"`
		Clean       bool                `json:"clean"`
		Count       int                 `json:"count"`
		Differences []verify.Difference `json:"differences"`
	}{schema, rel.Name, dir, count == 0, count, listed}, "%s against %s: %d differences", dir, rel.Name, count)
	if err == nil && count > 0 {
		err = hinted{fmt.Errorf("verify %s: %w: %d differences", dir, errDiffers, count),
			fmt.Sprintf("move it away and fetch it again: dcfs fetch %s %s", c.Args().Get(0), dir)}
	}
	return err
}
