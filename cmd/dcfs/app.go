package main

import (
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

const about = `One process serves one release on a host: it mounts the release at once, reads
fetch what they need first, the rest follows, a real copy takes the mount's
place, and the process seeds on for a while and ends.

RELEASE is one of
  VERSION                      looked up at the origin (--origin)
  http(s)://…/v1/releases/V    the same, with its origin
  FILE.torrent                 a signed release file
  magnet:?xt=…                 a magnet link

Every flag may also be set by an environment variable (--read-timeout is
DCFS_READ_TIMEOUT) or by a key in the configuration file (read-timeout: 30s).
Flag wins over environment, environment over file, file over default.

Sizes take KiB, MiB, GiB (or kB, MB, GB); rates are sizes a second
(20MiB) or bits (800Mbit/s); durations take ms, s, m, h.

Exit codes: 0 ok · 64 usage · 65 bad signature or data · 66 unknown release ·
69 nobody to fetch from · 70 anything else · 73 destination or version exists
with other content · 74 disk · 75 temporary, retry · 77 FUSE or permission ·
78 configuration · 130 interrupted · 143 terminated.`

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:        "dcfs",
		Usage:       "distribute release trees to a fleet, lazily mounted, peer to peer",
		Description: about,
		Commands: []*cli.Command{
			keyCommand(), publishCommand(), originCommand(),
			mountCommand(), fetchCommand(),
			activateCommand(), rollbackCommand(), deployCommand(),
			statusCommand(), whyCommand(), receiptCommand(), verifyCommand(), lsCommand(), gcCommand(),
			demoCommand(), doctorCommand(), completionCommand(), manCommand(), versionCommand(),
		},
		Writer:                    stdout,
		ErrWriter:                 stderr,
		HideVersion:               true, // the guard turns --version into the version command
		HideHelpCommand:           true, // and help X into X --help
		DisableSliceFlagSeparator: true, // commas mean something to some flags only
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              onUsageError,
	}
	prepare(app.Commands)
	return app
}

// prepare gives every command what all have in common.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true // or `dcfs ls help` would be a command of its own
		c.OnUsageError = onUsageError
		c.Description = strings.TrimSpace(c.Description)
		if len(c.Subcommands) > 0 {
			prepare(c.Subcommands)
			continue
		}
		c.Flags = append(c.Flags, commonFlags()...)
		c.Before = configure
	}
}

const common = "Common to all commands:"

func commonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "state", Value: "/var/lib/dcfs", Category: common,
			Usage: "`DIR` for releases, receipts and logs; made when missing"},
		&cli.StringFlag{Name: "run", Value: "/run/dcfs", Category: common,
			Usage: "`DIR` for the sockets that `dcfs status` asks; made when missing"},
		&cli.StringFlag{Name: "config", Value: defaultConfig, Category: common,
			Usage: "configuration `FILE`; only the default one may be missing"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Category: common,
			Usage: "no progress, and only errors in the log"},
		&cli.StringFlag{Name: "log-format", Value: "text", Category: common,
			Usage: "`FORMAT` of log lines on stderr: text or json"},
		&cli.StringFlag{Name: "log-level", Value: "info", Category: common,
			Usage: "lowest `LEVEL` logged: debug, info, warn or error"},
	}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print the result as JSON with \"schema\": 1"}
}

func originFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "origin",
		Usage: "origin `URL`, such as http://origin:7070, or srv:_dcfs._tcp.example.net for what its DNS records name; repeat or separate with commas for several (default: none)"}
}

func trustedFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "trusted", Value: "/etc/dcfs/trusted.d",
			Usage: "`DIR` of *.pub keys whose signatures count"},
		&cli.BoolFlag{Name: "insecure-unsigned",
			Usage: "accept a release without a trusted signature; for labs only"},
	}
}
