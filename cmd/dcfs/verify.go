package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/agent"
	"dcfs/cmd/internal/host"
	"dcfs/cmd/internal/repair"
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
  dcfs verify ./web-1.torrent /srv/current/ --json
  dcfs verify web-1 /srv/releases/web-1 --repair`,
		Flags: append([]cli.Flag{
			jsonFlag(), originFlag(),
			&cli.BoolFlag{Name: "repair", Usage: "when it differs, fetch a fresh copy beside DIR and swap the two"},
			&cli.DurationFlag{Name: "wait", Value: 60 * time.Second, Usage: "with --repair: look for a first peer this `TIME`, then exit 69"},
			&cli.StringSliceFlag{Name: "peer", Usage: "with --repair: a peer's `HOST:PORT` to ask besides the tracker's; may be repeated (default: none)"},
			&cli.StringFlag{Name: "peer-listen", Usage: "with --repair: accept peers on `HOST:PORT` (default: the first free port of 7072–7171)"},
			tlsFlag(), allowFlag(), ownerFlag(),
		}, trustedFlags()...),
		Action: func(c *cli.Context) error {
			rel, err := verifyAgainst(c)
			if err != nil {
				return err
			}
			found, err := compare(c, rel)
			if err == nil && found.count > 0 && c.Bool("repair") {
				err = repairDir(c, rel)
				found.repaired = err == nil
			}
			if err != nil {
				return err
			}
			return found.report(c, rel)
		},
	}
}

func verifyAgainst(c *cli.Context) (*release.Release, error) {
	origins, err := originsOf(c)
	if err != nil {
		return nil, err
	}
	owner, err := ownerOf(c)
	if err != nil {
		return nil, err
	}
	identity, err := clientIdentity(c)
	if err != nil {
		return nil, err
	}
	rel, err := host.Release(c.Context, host.Question{
		Word: c.Args().Get(0), Dir: c.Args().Get(1), Origins: origins, Identity: identity,
		State: c.String("state"), Trusted: c.String("trusted"), Unsigned: c.Bool("insecure-unsigned"),
	})
	if err == nil && owner != nil {
		rel = rel.GivenTo(*owner)
	}
	return rel, err
}

// maxListed bounds the differences in one JSON answer; all are counted.
const maxListed = 10_000

// differences is what was found in a directory.
type differences struct {
	count    int
	listed   []verify.Difference // for JSON, up to maxListed
	repaired bool
}

// compare prints each difference as it is found, or collects them for JSON.
func compare(c *cli.Context, rel *release.Release) (found differences, err error) {
	found.listed = []verify.Difference{}
	opt := verify.Options{Unprivileged: verify.Unprivileged()}
	err = verify.Compare(c.Context, rel.Tree, c.Args().Get(1), opt, func(d verify.Difference) error {
		found.count++
		if !c.Bool("json") {
			_, err := fmt.Fprintln(c.App.Writer, d)
			return err
		}
		if len(found.listed) < maxListed {
			found.listed = append(found.listed, d)
		}
		return nil
	})
	return found, err
}

func (d differences) report(c *cli.Context, rel *release.Release) error {
	dir := c.Args().Get(1)
	text := fmt.Sprintf("%s against %s: %d differences", dir, rel.Name, d.count)
	if d.repaired {
		text += ", repaired"
	}
	err := result(c, struct {
		Schema      int                 `json:"schema"`
		Version     string              `json:"version"`
		Dir         string              `json:"dir"`
		Clean       bool                `json:"clean"`
		Repaired    bool                `json:"repaired"`
		Count       int                 `json:"count"`
		Differences []verify.Difference `json:"differences"`
	}{schema, rel.Name, dir, d.count == 0, d.repaired, d.count, d.listed}, "%s", text)
	if err != nil || d.count == 0 || d.repaired {
		return err
	}
	return hinted{fmt.Errorf("verify %s: %w: %d differences", dir, errDiffers, d.count),
		fmt.Sprintf("dcfs verify %s %s --repair", c.Args().Get(0), dir)}
}

// repairDir fetches the release anew; Replace holds the copy against rel.
func repairDir(c *cli.Context, rel *release.Release) error {
	if err := notNegative(c, "wait"); err != nil {
		return err
	}
	cfg := agent.Config{Wait: c.Duration("wait"), Peers: commas(c.StringSlice("peer")), InsecureUnsigned: c.Bool("insecure-unsigned")}
	cfg.Version, _ = buildVersion()
	var err error
	if cfg.Log, err = logger(c, c.App.ErrWriter); err != nil {
		return err
	}
	if cfg.Gate, err = gateOf(c, false, cfg.Log); err != nil {
		return err
	}
	if cfg.Owner, err = ownerOf(c); err != nil {
		return err
	}
	if err := mayGive(cfg.Owner); err != nil {
		return err
	}
	if cfg.Origins, err = originsOf(c); err != nil {
		return err
	}
	if cfg.PeerListen, err = listenOf(c, "peer-listen"); err != nil {
		return err
	}
	cfg.Release = c.Args().Get(0)
	if err := lifePaths(c, &cfg); err != nil {
		return err
	}
	return repair.Replace(c.Context, cfg.State, c.Args().Get(1), rel, func(ctx context.Context, dest string) error {
		cfg.Dest = dest
		return agent.Run(ctx, cfg)
	})
}
