package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"dcfs/fs/activate"
	"dcfs/fs/materialise"
)

func receiptCommand() *cli.Command {
	return &cli.Command{
		Name:      "receipt",
		Usage:     "say which whole release DIR is, as far as this host knows",
		ArgsUsage: "DIR",
		Description: `
A copy that dcfs finished has a receipt in the state directory. Nothing of DIR
is read again: dcfs verify does that. With --link, it also says where a symlink
leads and which order of a deployment moved it last.

Examples:
  dcfs receipt /srv/releases/web-2
  dcfs receipt /srv/releases/web-2 --link /srv/current --json`,
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.StringFlag{Name: "link", Usage: "look at this symlink `LINK`, too (default: none)"},
		},
		Action: receipt,
	}
}

// receiptReport is what `receipt --json` prints; `dcfs deploy` reads it.
type receiptReport struct {
	Schema    int        `json:"schema"`
	Dest      string     `json:"dest"`
	Complete  bool       `json:"complete"`
	Version   string     `json:"version,omitempty"`
	Infohash  string     `json:"infohash,omitempty"`
	Completed *time.Time `json:"completed,omitempty"`
	Link      string     `json:"link,omitempty"`
	Target    string     `json:"target,omitempty"`
	Epoch     int64      `json:"epoch,omitempty"`
}

func receipt(c *cli.Context) error {
	dir, err := absolute(c.Args().First())
	if err != nil {
		return err
	}
	r := receiptReport{Schema: schema, Dest: dir}
	found, complete, err := materialise.Lookup(c.String("state"), dir)
	if err != nil {
		return err
	}
	text := "no whole release, as far as this host knows"
	if r.Complete = complete; complete {
		r.Version, r.Infohash, r.Completed = found.Version, found.InfoHash, &found.Completed
		text = found.Version + " " + found.InfoHash + ", complete since " + found.Completed.Format(time.RFC3339)
	}
	if c.String("link") != "" {
		f, err := activate.Inspect(c.String("link"), activate.Options{State: c.String("state")})
		if err != nil {
			return err
		}
		r.Link, r.Target, r.Epoch = f.Link, f.Target, f.Epoch
		text += "\n" + f.Link + " -> " + orDash(f.Target)
	}
	return result(c, r, "%s: %s", dir, text)
}
