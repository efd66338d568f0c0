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

// buildVersion is the module's version and the commit, as Go recorded them.
func buildVersion() (version, commit string) {
	version, commit = "(devel)", "(unknown commit)"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, commit
	}
	if info.Main.Version != "" {
		version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = s.Value
		}
	}
	return version, commit
}
