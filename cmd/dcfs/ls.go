package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/catalog"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "list the releases that the origin holds",
		Description: `
Examples:
  dcfs ls --origin http://origin:7070
  dcfs ls --json | jq -r '.releases[].version'`,
		Flags:  []cli.Flag{jsonFlag(), originFlag(), tlsFlag()},
		Action: ls,
	}
}

func ls(c *cli.Context) error {
	origins, err := originsOf(c)
	if err != nil {
		return err
	}
	if len(origins) == 0 {
		return usage("ls: no origin is known", "dcfs ls --origin http://HOST:7070")
	}
	identity, err := clientIdentity(c)
	if err != nil {
		return err
	}
	client := &catalog.Client{Origins: origins, Identity: identity}
	defer client.Close()
	list, err := client.List(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, catalog.ListResponse{
			Schema: schema, Releases: append([]catalog.Release{}, list...),
		})
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(c.App.Writer, "the origin holds no release")
		return err
	}
	t := tabwriter.NewWriter(c.App.Writer, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "RELEASE\tSIZE\tFILES\tPIECES\tCREATED\tSIGNED BY\tINFOHASH")
	for _, r := range list {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", r.Version, size(r.Bytes), r.Files, r.Pieces,
			createdAt(r), orDash(r.KeyID), r.Infohash)
	}
	return t.Flush()
}

// createdAt is the time that the signed statement names; without one nobody
// knows.
func createdAt(r catalog.Release) string {
	if r.Created.IsZero() {
		return "-"
	}
	return r.Created.Local().Format("2006-01-02 15:04")
}
