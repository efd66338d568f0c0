package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/doctor"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "look whether this host is fit to run dcfs",
		Description: `
Looks at the kernel, FUSE, limits, ports, disks, directories, trusted keys,
certificates, each origin, and this host's clock against theirs. It changes nothing. Exits 0 when
all is well or only warnings are left, else with the code that a command would
end with.

Examples:
  dcfs doctor --origin http://origin:7070
  dcfs doctor --json | jq -r '.checks[] | select(.level != "ok") | .text'`,
		Flags: []cli.Flag{
			originFlag(), jsonFlag(), tlsFlag(),
			&cli.StringFlag{Name: "dest", Usage: "look at the disk of this `DIR`, too (default: only --state)"},
			&cli.StringFlag{Name: "peer-listen", Usage: "try this `HOST:PORT` (default: the ports of mount and fetch)"},
			&cli.StringFlag{Name: "trusted", Value: "/etc/dcfs/trusted.d", Usage: "`DIR` of *.pub keys whose signatures count"},
		},
		Action: examine,
	}
}

func examine(c *cli.Context) (err error) {
	cfg := doctor.Config{State: c.String("state"), Run: c.String("run"), Dest: c.String("dest"), Trusted: c.String("trusted")}
	if cfg.Origins, err = originsOf(c); err != nil {
		return err
	}
	if cfg.PeerListen, err = listenOf(c, "peer-listen"); err != nil {
		return err
	}
	for _, path := range []*string{&cfg.State, &cfg.Run, &cfg.Dest, &cfg.Trusted} {
		if *path, err = absolute(*path); err != nil {
			return err
		}
	}
	if cfg.TLS, err = absolute(c.String("peer-tls")); err != nil {
		return err
	}
	found := doctor.Examine(c.Context, cfg)
	verdict := diagnosis(found)
	if c.Bool("json") {
		err = printJSON(c.App.Writer, struct {
			Schema int              `json:"schema"`
			OK     bool             `json:"ok"`
			Checks []doctor.Finding `json:"checks"`
		}{schema, verdict == nil, found})
	} else {
		err = findings(c, found)
	}
	if err != nil {
		return err
	}
	return verdict
}

func findings(c *cli.Context, found []doctor.Finding) error {
	t := tabwriter.NewWriter(c.App.Writer, 0, 8, 2, ' ', 0)
	for _, f := range found {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Level, f.Name, f.Text)
		if f.Level != doctor.OK && f.Try != "" {
			fmt.Fprintf(t, "\t\ttry: %s\n", f.Try)
		}
	}
	return t.Flush()
}

// ailment is what keeps this host from running dcfs.
type ailment struct {
	doctor.Finding
	more int
}

func (a ailment) Error() string {
	text := fmt.Sprintf("this host is not fit: %s: %s", a.Name, a.Text)
	if a.more > 0 {
		text += fmt.Sprintf(" (and %d more)", a.more)
	}
	return text
}

func (a ailment) Hint() string { return a.Try }

// ailmentCodes are the codes that a command would end with.
var ailmentCodes = map[string]int{
	doctor.Kernel: exitPermission, doctor.FUSE: exitPermission, doctor.Disk: exitDisk, doctor.Run: exitPermission,
	doctor.Keys: exitConfig, doctor.TLS: exitConfig, doctor.Ports: exitConfig, doctor.Clock: exitConfig, doctor.Origin: exitUnavailable,
}

func (a ailment) ExitCode() int { return ailmentCodes[a.Name] }

// diagnosis is nil when nothing fails.
func diagnosis(found []doctor.Finding) error {
	var failed []doctor.Finding
	for _, f := range found {
		if f.Level == doctor.Fail {
			failed = append(failed, f)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return ailment{failed[0], len(failed) - 1}
}
