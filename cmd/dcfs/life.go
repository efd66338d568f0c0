package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/agent"
	"dcfs/cmd/internal/config"
	"dcfs/cmd/internal/control"
	"dcfs/cmd/internal/detach"
	"dcfs/cmd/internal/holder"
	"dcfs/cmd/internal/service"
)

// lifeFlags are the flags of the commands that live a release's life on this
// host: mount and fetch.
func lifeFlags() []cli.Flag {
	return append([]cli.Flag{
		originFlag(), jsonFlag(),
		&cli.StringFlag{Name: "activate", Usage: "swap this symlink `LINK` to the copy once it is materialised (default: none)"},
		&cli.DurationFlag{Name: "linger", Value: 30 * time.Second, Usage: "seed on for this `TIME` after the copy stands"},
		&cli.DurationFlag{Name: "linger-max", DefaultText: "ten times --linger", Usage: "and on while connected peers fetch pieces that few others have, until this `TIME` is over in all; 0s: only for --linger"},
		&cli.StringFlag{Name: "detach-after", Usage: "return 0 when this `STAGE` is reached and go on in the background: mounted or materialised (default: stay in the foreground)"},
		&cli.StringFlag{Name: "at-end", Value: agent.AtEndHandover, Usage: "what becomes of the mount, `HOW`: handover (the path turns native), unmount, or keep (serve until told to end)"},
		&cli.DurationFlag{Name: "read-timeout", Value: 30 * time.Second, Usage: "a read of the mount fails with EIO after this `TIME`"},
		&cli.DurationFlag{Name: "wait", Value: 60 * time.Second, Usage: "look for metadata and a first peer this `TIME`, then exit 69"},
		&cli.DurationFlag{Name: "disk-patience", Value: 60 * time.Second, Usage: "when the disk is full or broken, serve on from memory and peers and wait this `TIME` for it to recover, then exit 74"},
		&cli.StringFlag{Name: "cache", Usage: "`SIZE` of the piece cache in memory, such as 512MiB (default: a share of what is free)"},
		&cli.StringFlag{Name: "up", Usage: "send peers at most this `RATE` a second, as counted on the link, such as 50MiB (default: unlimited)"},
		&cli.StringFlag{Name: "down", Usage: "receive from peers at most this `RATE` a second, likewise (default: unlimited)"},
		hostUpFlag(),
		&cli.StringFlag{Name: "host-down", Usage: "`RATE` that all dcfs processes with this --run receive together at most (default: unlimited)"},
		&cli.IntFlag{Name: "max-peers", DefaultText: "80", Usage: "connect to at most `N` peers"},
		tradeFlag(),
		tlsFlag(), allowFlag(),
		&cli.StringSliceFlag{Name: "peer", Usage: "a peer's `HOST:PORT` to ask besides the tracker's; may be repeated (default: none)"},
		&cli.StringSliceFlag{Name: "web-seed", Usage: "fetch from below this `URL`, a directory that holds one of the release's name, what no peer serves; may be repeated, \"none\" for no web seed (default: the release's, then the origins')"},
		&cli.StringFlag{Name: "peer-listen", Usage: "accept peers on `HOST:PORT`; port 0 for any (default: the first free port of 7072–7171)"},
		&cli.StringFlag{Name: "http", Usage: "serve a status page, /metrics and /healthz on `HOST:PORT`; port 0 for any (default: none)"},
		&cli.BoolFlag{Name: "report", Value: true, Usage: "tell the origins every few seconds how this host is, for their status page; --report=false does not"},
		&cli.StringSliceFlag{Name: "reuse", Usage: "take what it has of the release from directory `DIR` instead of the network; may be repeated (default: the complete releases on this host)"},
		&cli.BoolFlag{Name: "reuse-hardlinks", Usage: "make files that an older release has in every respect hardlinks of it: saves disk, but who writes to one release then changes both"},
		&cli.StringFlag{Name: "rack", Usage: "`NAME` of this host's rack, or @FILE with the name in its first line: hosts of a rack fetch each piece from outside once and then from each other (default: none)"},
		ownerFlag(),
		&cli.StringFlag{Name: "trace-out", Usage: "record which files are read first to this `FILE`, for publish --trace (default: none)"},
	}, trustedFlags()...)
}

// tradeFlag is for everybody who exchanges pieces.
func tradeFlag() cli.Flag {
	return &cli.BoolFlag{Name: "trade", Value: true, Usage: "share pieces with other dcfs hosts by a plan that sends little twice, while nobody reads; --trade=false: as all BitTorrent clients do"}
}

// liveRelease runs one life in the foreground, or starts it in the background
// and follows it to the stage that --detach-after names.
func liveRelease(c *cli.Context, cfg agent.Config) error {
	if err := lifeConfig(c, &cfg); err != nil {
		return err
	}
	stage, err := detachStage(c)
	if err != nil {
		return err
	}
	held := holder.Inherit()
	if cfg.Mountpoint != "" && held == nil && (stage == "" || detach.Started()) {
		if done, err := keepMount(c, cfg); done || err != nil {
			return err
		}
	}
	parent := detach.Inherit()
	show := newProgress(c)
	show.json = show.json && parent == nil // whoever started it in the background tells
	defer show.close()
	if cfg.Log, err = logger(c, show.writer()); err != nil {
		return err
	}
	if err := beHeld(held, &cfg); err != nil {
		return err
	}
	if cfg.Gate, err = gateOf(c, cfg.Resume != nil, cfg.Log); err != nil {
		return err
	}
	if stage != "" && parent == nil {
		return background(c, cfg, stage, show)
	}
	return foreground(c, cfg, parent, show)
}

func foreground(c *cli.Context, cfg agent.Config, parent *detach.Reporter, show *progress) error {
	var last control.Status
	tell := notify(service.Find(cfg.Log), &cfg)
	cfg.OnState = func(_ control.State, s control.Status) {
		last = s
		show.update(s)
		parent.State(s)
		tell(s)
	}
	stop := show.poll(c.Context, control.SocketPath(cfg.RunDir, cfg.PID), cfg.Log)
	err := agent.Run(c.Context, cfg)
	stop()
	if err != nil {
		parent.End(err.Error(), hintOf(err), verdict(c.Context, err))
		return err
	}
	parent.End("", "", exitOK)
	show.close()
	return lifeResult(c, last, "")
}

func background(c *cli.Context, cfg agent.Config, stage control.State, show *progress) error {
	if s, ok := joinLive(c, cfg, stage, show); ok {
		show.close()
		return lifeResult(c, s, "")
	}
	if c.Context.Err() != nil {
		return context.Cause(c.Context)
	}
	child, err := detach.Start(os.Args, detach.LogPath(cfg.State, cfg.Release, time.Now()))
	if err != nil {
		return err
	}
	cfg.Log.Info("started in the background", "pid", child.PID, "log", child.Log)
	stop := show.poll(c.Context, control.SocketPath(cfg.RunDir, child.PID), cfg.Log)
	var last control.Status
	err = child.Follow(c.Context, stage, func(s control.Status) {
		last = s
		show.update(s)
		cfg.Log.Info("state", "state", s.State, "release", s.Version, "pid", child.PID)
	})
	stop()
	show.close()
	if err != nil {
		return err
	}
	return lifeResult(c, last, child.Log)
}

// lifeResult prints how far the release has come; log is that of the process
// that goes on in the background, if one does.
func lifeResult(c *cli.Context, s control.Status, log string) error {
	report := struct {
		control.Status
		Log string `json:"log,omitempty"`
	}{s, log}
	text := fmt.Sprintf("%s %s: %s", s.Version, s.State, where(s))
	if log != "" {
		text += fmt.Sprintf("\nprocess %d goes on in the background; its log is %s", s.PID, log)
	}
	return result(c, report, "%s", text)
}

// lifeConfig reads the flags of lifeFlags.
func lifeConfig(c *cli.Context, cfg *agent.Config) (err error) {
	if cfg.Linger, cfg.LingerMax = c.Duration("linger"), -1; c.IsSet("linger-max") {
		cfg.LingerMax = c.Duration("linger-max")
	}
	cfg.ReadTimeout = c.Duration("read-timeout")
	cfg.Wait = c.Duration("wait")
	cfg.DiskPatience = c.Duration("disk-patience")
	cfg.MaxPeers = c.Int("max-peers")
	cfg.Trade = c.Bool("trade")
	cfg.Peers = commas(c.StringSlice("peer"))
	cfg.NoReports = !c.Bool("report")
	cfg.ReuseLinks = c.Bool("reuse-hardlinks")
	cfg.InsecureUnsigned = c.Bool("insecure-unsigned")
	cfg.Version, _ = buildVersion()
	if cfg.AtEnd, err = oneOf(c, "at-end", agent.AtEndHandover, agent.AtEndUnmount, agent.AtEndKeep); err != nil {
		return err
	}
	if err := checkPeers(c); err != nil {
		return err
	}
	if err := notNegative(c, "linger", "linger-max", "read-timeout", "wait", "disk-patience"); err != nil {
		return err
	}
	if cfg.Rack, err = config.ReadRack(c.String("rack")); err != nil {
		return usage(fmt.Sprintf("--rack: %v", err), helpOf(c))
	}
	if cfg.Owner, err = ownerOf(c); err != nil {
		return err
	}
	if err := mayGive(cfg.Owner); err != nil {
		return err
	}
	if cfg.Origins, err = namedOrigins(c); err != nil {
		return err
	}
	if cfg.WebSeeds, err = webSeedsOf(c); err != nil {
		return err
	}
	if cfg.PeerListen, err = listenOf(c, "peer-listen"); err != nil {
		return err
	}
	if cfg.HTTP, err = listenOf(c, "http"); err != nil {
		return err
	}
	if cfg.CacheBytes, err = sizeOf(c, "cache"); err != nil {
		return err
	}
	if cfg.DownRate, err = downRate(c); err != nil {
		return err
	}
	return lifePaths(c, cfg)
}

// lifePaths resolves every path now: what runs in the background later may
// have another working directory.
func lifePaths(c *cli.Context, cfg *agent.Config) error {
	var err error
	cfg.State, cfg.RunDir, cfg.TrustedDir = c.String("state"), c.String("run"), c.String("trusted")
	cfg.Activate, cfg.TraceOut = c.String("activate"), c.String("trace-out")
	for _, dir := range c.StringSlice("reuse") {
		if dir, err = absolute(dir); err != nil {
			return err
		}
		cfg.Reuse = append(cfg.Reuse, dir)
	}
	for _, path := range []*string{&cfg.State, &cfg.RunDir, &cfg.TrustedDir,
		&cfg.Activate, &cfg.TraceOut, &cfg.Dest, &cfg.Mountpoint} {
		if *path, err = absolute(*path); err != nil {
			return err
		}
	}
	return nil
}

// detachStage is where --detach-after returns; empty to stay.
func detachStage(c *cli.Context) (control.State, error) {
	if c.String("detach-after") == "" {
		return "", nil
	}
	stage, err := oneOf(c, "detach-after", string(control.Mounted), string(control.Materialised))
	if stage == string(control.Materialised) {
		// The handover and the swap of --activate come between these two: when
		// one of them fails, nobody may have been told that all is well.
		stage = string(control.Lingering)
	}
	return control.State(stage), err
}
