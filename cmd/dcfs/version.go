package main

import (
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version of this program",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			v, commit := buildVersion()
			return result(c, struct {
				Schema  int    `json:"schema"`
				Version string `json:"version"`
				Commit  string `json:"commit,omitempty"`
				Go      string `json:"go"`
			}{schema, v, commit, runtime.Version()}, "dcfs %s %s %s", v, commit, runtime.Version())
		},
	}
}

// version is set by the linker; see the Makefile.
var version string

// buildVersion is the version that the linker or the module was given, and the
// commit as Go recorded it.
func buildVersion() (name, commit string) {
	name, commit = "(devel)", "(unknown commit)"
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" {
		name = info.Main.Version
	}
	if version != "" {
		name = version
	}
	if !ok {
		return name, commit
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = s.Value
		}
	}
	return name, commit
}
