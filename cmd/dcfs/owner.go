package main

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/config"
	"dcfs/fs/tree"
)

func ownerFlag() cli.Flag {
	return &cli.StringFlag{Name: "owner", DefaultText: "the release's",
		Usage: "everything belongs to `USER:GROUP`, names or numbers; setuid and setgid of others are left off"}
}

// ownerOf reads --owner; nil leaves the owners to the release.
func ownerOf(c *cli.Context) (*tree.Account, error) {
	if c.String("owner") == "" {
		return nil, nil
	}
	to, err := config.ParseOwner(c.String("owner"))
	if err != nil {
		return nil, usage(fmt.Sprintf("--owner: %v", err), "id, or getent passwd")
	}
	return &to, nil
}

// mayGive refuses what only root can do; to be the owner oneself is allowed.
func mayGive(to *tree.Account) error {
	if to == nil || os.Geteuid() == 0 || int(to.UID) == os.Geteuid() && int(to.GID) == os.Getegid() {
		return nil
	}
	return fmt.Errorf("--owner %d:%d: %w: only root can give files away; run as root, or leave it out: everything will belong to %d:%d",
		to.UID, to.GID, fs.ErrPermission, os.Geteuid(), os.Getegid())
}
