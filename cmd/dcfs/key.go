package main

import (
	"github.com/urfave/cli/v2"

	"dcfs/fs/release"
)

func keyCommand() *cli.Command {
	return &cli.Command{
		Name:  "key",
		Usage: "make the keys that releases are signed with",
		Subcommands: []*cli.Command{{
			Name:      "generate",
			Usage:     "write a new key pair, PATH.key and PATH.pub",
			ArgsUsage: "PATH",
			Description: `
The files are minisign's: Debian's minisign verifies what dcfs signs, and the
reverse. PATH.key has mode 0600 and no password; it stays with the publisher.
PATH.pub belongs into /etc/dcfs/trusted.d of every host. Nothing is overwritten.

Examples:
  dcfs key generate /etc/dcfs/release
  install -m 0644 /etc/dcfs/release.pub /etc/dcfs/trusted.d/`,
			Flags:  []cli.Flag{jsonFlag()},
			Action: keyGenerate,
		}},
	}
}

func keyGenerate(c *cli.Context) error {
	path := c.Args().First()
	if err := release.GenerateKey(path); err != nil {
		return err
	}
	return result(c, struct {
		Schema int    `json:"schema"`
		Key    string `json:"key"`
		Public string `json:"public"`
	}{schema, path + ".key", path + ".pub"},
		"secret key %s.key (keep it)\npublic key %s.pub (copy it to /etc/dcfs/trusted.d of every host)", path, path)
}
