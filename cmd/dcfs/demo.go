package main

import (
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/demo"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "show the whole story on this machine: an origin and some nodes on loopback",
		Description: `
Publishes a sample tree made on the spot, mounts it on every node (as root with
/dev/fuse; otherwise it says so and fetches), reads before all is there, leaves
copies, swaps links, kills the origin, lets a late joiner fetch from the nodes,
and verifies every copy. All in one directory, which is removed at the end.

Examples:
  dcfs demo
  dcfs demo --nodes 8 --size 1GiB --dir /var/tmp --keep`,
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.IntFlag{Name: "nodes", Value: 4, Usage: "`N` nodes, besides the origin and the late joiner"},
			&cli.StringFlag{Name: "size", Value: "200MiB", Usage: "`SIZE` of the sample tree"},
			&cli.StringFlag{Name: "dir", Usage: "make the demo's directory below this `PATH` (default: the system's temporary directory)"},
			&cli.BoolFlag{Name: "keep", Usage: "leave the demo's directory behind"},
		},
		Action: runDemo,
	}
}

func runDemo(c *cli.Context) error {
	bytes, err := sizeOf(c, "size")
	if err != nil {
		return err
	}
	if n := c.Int("nodes"); n < 1 || n > demo.MaxNodes || bytes < demo.MinSize {
		return usage(fmt.Sprintf("demo: want 1 to %d --nodes and a --size of at least %s",
			demo.MaxNodes, size(demo.MinSize)), "dcfs demo --nodes 4 --size 200MiB")
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("demo: this program: %w", err)
	}
	story := c.App.ErrWriter
	if c.Bool("quiet") {
		story = io.Discard
	}
	figures, err := demo.Run(c.Context, demo.Config{
		Exe: exe, Nodes: c.Int("nodes"), Size: bytes,
		Dir: c.String("dir"), Keep: c.Bool("keep"), Story: story,
	})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, figures)
	}
	return figures.Print(c.App.Writer)
}
