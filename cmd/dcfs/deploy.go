package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/fleet"
	"dcfs/cmd/internal/origin"
)

func deployCommand() *cli.Command {
	return &cli.Command{
		Name:      "deploy",
		Usage:     "publish DIR, bring it to every host, swap everywhere, or go back everywhere",
		ArgsUsage: "DIR",
		Description: `
Publishes DIR as VERSION, starts dcfs mount on every host of --hosts through
ssh, and waits until the quorum has the whole, verified copy. Only then is the
link swapped on all of these, and the health check run. When too few swap or too
many are not healthy, every host goes back to what it had. Interrupted, it goes
back, too. The same command again takes up where the last one ended.

On a host, VERSION is mounted at MOUNT/VERSION and its copy is DEST/VERSION.

Examples:
  dcfs deploy ./build --as web-2 --key release.key --hosts hosts.txt \
      --origin http://origin:7070 --publish-token-file token \
      --mount /releases --dest /srv/releases --current /srv/current \
      --quorum 95% --health 'curl -fsS http://localhost:8080/healthz'
  dcfs deploy ./build --as web-2 … --dry-run
  dcfs deploy ./build --as web-2 … --ssh 'ssh -i deploy.pem -l deploy'`,
		Flags:  append(publishFlags(), deployFlags()...),
		Action: deploy,
	}
}

func deployFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "hosts", Usage: "`FILE` with one host on a line, as ssh takes it; - is standard input (required)"},
		&cli.StringFlag{Name: "mount", Value: "/releases", Usage: "`DIR` on the hosts for the mountpoints"},
		&cli.StringFlag{Name: "dest", Value: "/srv/releases", Usage: "`DIR` on the hosts for the copies"},
		&cli.StringFlag{Name: "current", Value: "/srv/current", Usage: "symlink `LINK` on the hosts"},
		&cli.IntFlag{Name: "parallel", Value: 256, Usage: "speak to at most `N` hosts at the same time"},
		&cli.StringFlag{Name: "quorum", Value: "100%", Usage: "swap when `N` or P% of the hosts are ready"},
		&cli.StringFlag{Name: "health", Usage: "shell `CMD` to run on each host after the swap; 0 is healthy (default: none)"},
		&cli.DurationFlag{Name: "health-timeout", Value: 30 * time.Second, Usage: "try a health check for this `TIME`"},
		&cli.IntFlag{Name: "max-unhealthy", Usage: "go back when more than `N` hosts are not healthy"},
		&cli.DurationFlag{Name: "timeout", Value: 30 * time.Minute, Usage: "`TIME` for the hosts to get ready"},
		&cli.DurationFlag{Name: "straggler", Value: 30 * time.Second, Usage: "`TIME` for the rest once the quorum is ready"},
		&cli.DurationFlag{Name: "call-timeout", Value: 20 * time.Second, Usage: "`TIME` for one host to swap or to go back"},
		&cli.StringFlag{Name: "ssh", Value: "ssh -o BatchMode=yes -o ConnectTimeout=10",
			Usage: "`CMD` that runs a command line on a host: it gets both as further arguments"},
		&cli.StringFlag{Name: "remote-dcfs", Value: "dcfs", Usage: "the `PROGRAM` on the hosts"},
		&cli.StringSliceFlag{Name: "host-origin", Usage: "origin `URL` for the hosts; may be repeated (default: that of --origin)"},
		&cli.StringSliceFlag{Name: "host-flag", Usage: "`FLAG` for dcfs mount on the hosts, such as --linger=5m; may be repeated (default: none)"},
		&cli.StringFlag{Name: "origin-up", Usage: "`RATE` a second at which the origin can send, for the bound in the report (default: not known)"},
		&cli.StringFlag{Name: "host-up", Usage: "`RATE` a second at which a host can send, likewise (default: --up of --host-flag)"},
		&cli.StringFlag{Name: "host-down", Usage: "`RATE` a second at which a host can receive, likewise (default: --down of --host-flag)"},
		&cli.BoolFlag{Name: "dry-run", Usage: "say what would be run on the hosts, and do nothing"},
	}
}

func deploy(c *cli.Context) error {
	if c.String("as") == "" || c.String("hosts") == "" {
		return usage("deploy needs a name for the release and a list of hosts",
			"dcfs deploy "+c.Args().First()+" --as VERSION --hosts FILE")
	}
	cfg, err := fleetConfig(c)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return deployPlan(c, cfg)
	}
	show := newProgress(c)
	defer show.close()
	if cfg.Log, err = logger(c, show.writer()); err != nil {
		return err
	}
	release, err := deployPublish(c, show)
	if err != nil {
		return err
	}
	show.close()
	cfg.InfoHash, cfg.Bytes = release.InfoHash, release.Bytes
	origin, err := sentBy(c)
	if err != nil {
		return err
	}
	cfg.Sent = origin
	table := newHostTable(c, cfg.Log)
	cfg.OnChange, cfg.Log = table.show, table.log
	r, err := fleet.Deploy(c.Context, cfg)
	table.close()
	if r.Outcome == "" {
		return err
	}
	return errors.Join(err, deployResult(c, release, r))
}

func deployPublish(c *cli.Context, show *progress) (origin.Result, error) {
	cfg, err := publishConfig(c)
	if err != nil {
		return origin.Result{}, err
	}
	cfg.Progress = show.bytes
	if cfg.Log, err = logger(c, show.writer()); err != nil {
		return origin.Result{}, err
	}
	return origin.Publish(c.Context, cfg)
}

func fleetConfig(c *cli.Context) (cfg fleet.Config, err error) {
	if err := notNegative(c, "parallel", "max-unhealthy", "timeout", "straggler", "call-timeout", "health-timeout"); err != nil {
		return cfg, err
	}
	cfg = fleet.Config{
		Version: c.String("as"), Mount: c.String("mount"), Dest: c.String("dest"), Current: c.String("current"),
		Dcfs: c.String("remote-dcfs"), Parallel: c.Int("parallel"), MaxUnhealthy: c.Int("max-unhealthy"),
		Health: c.String("health"), HealthTime: c.Duration("health-timeout"), Timeout: c.Duration("timeout"),
		Straggler: c.Duration("straggler"), CallTimeout: c.Duration("call-timeout"),
	}
	if cfg.Rates, err = linkRates(c); err != nil {
		return cfg, err
	}
	words := strings.Fields(c.String("ssh"))
	if len(words) == 0 {
		return cfg, usage("deploy: --ssh is empty", helpOf(c))
	}
	if _, err := exec.LookPath(words[0]); err != nil {
		return cfg, usage(fmt.Sprintf("deploy: --ssh %s: %v", words[0], err), "install it, or name another program")
	}
	cfg.Runner = fleet.Shell{Words: words}
	if cfg.Hosts, err = hostsOf(c.String("hosts")); err != nil {
		return cfg, err
	}
	if cfg.Quorum, err = fleet.ParseQuorum(c.String("quorum"), len(cfg.Hosts)); err != nil {
		return cfg, err
	}
	origins := commas(c.StringSlice("host-origin"))
	if len(origins) == 0 {
		if origins, err = originsOf(c); err != nil {
			return cfg, err
		}
	}
	for _, o := range origins {
		cfg.Flags = append(cfg.Flags, "--origin", o)
	}
	cfg.Flags = append(cfg.Flags, c.StringSlice("host-flag")...)
	return cfg, cfg.Check()
}

func hostsOf(file string) ([]string, error) {
	var in io.Reader = os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("the list of hosts: %w; one host on a line", err)
		}
		defer f.Close()
		in = f
	}
	return fleet.ParseHosts(in)
}

// deployPlan prints what would be run.
func deployPlan(c *cli.Context, cfg fleet.Config) error {
	plan := struct {
		Schema   int      `json:"schema"`
		DryRun   bool     `json:"dry_run"`
		Version  string   `json:"version"`
		Hosts    []string `json:"hosts"`
		Quorum   int      `json:"quorum"`
		Commands []string `json:"commands"`
	}{schema, true, cfg.Version, cfg.Hosts, cfg.Quorum, cfg.Commands()}
	return result(c, plan, "publish %s as %s; then on %d hosts, %d of which have to be ready:\n  %s",
		c.Args().First(), cfg.Version, len(cfg.Hosts), cfg.Quorum, strings.Join(plan.Commands, "\n  "))
}

// deployReport is what `deploy --json` prints.
type deployReport struct {
	Schema  int   `json:"schema"`
	Changed bool  `json:"changed"` // the release was not published before
	Bytes   int64 `json:"bytes"`
	fleet.Report
}

func deployResult(c *cli.Context, p origin.Result, r fleet.Report) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s: %s", r.Version, r.Outcome, deploySummary(r))
	deployTimes(&text, r)
	for _, h := range r.Hosts {
		if h.Error != "" {
			fmt.Fprintf(&text, "\n%s: %s, link -> %s: %s", h.Name, h.State, orDash(h.Target), h.Error)
		}
	}
	return result(c, deployReport{schema, p.Changed, p.Bytes, r}, "%s", text.String())
}

// deploySummary counts the hosts by their state, in the order of a life.
func deploySummary(r fleet.Report) string {
	var parts []string
	for _, s := range fleet.States {
		if n := r.Counts[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return fmt.Sprintf("%s of %d hosts", strings.Join(parts, ", "), len(r.Hosts))
}
