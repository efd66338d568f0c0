package main

import (
	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/origin"
	"dcfs/cmd/internal/service"
)

func originCommand() *cli.Command {
	return &cli.Command{
		Name:  "origin",
		Usage: "run the one long-lived service: index, tracker, seeder, web seed",
		Description: `
No other server is needed. It keeps its releases in STATE/origin, prints one
line on stdout when it is ready, and runs until it is told to end.

Examples:
  dcfs origin
  dcfs origin --listen 10.0.0.1:7070 --peer-listen 10.0.0.1:7071 \
      --publish-token-file /etc/dcfs/publish.token`,
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.StringFlag{Name: "listen", Value: ":7070", Usage: "serve HTTP on `HOST:PORT`; port 0 for any"},
			&cli.StringFlag{Name: "peer-listen", Value: ":7071", Usage: "accept peers on `HOST:PORT`; port 0 for any"},
			&cli.StringFlag{Name: "publish-token-file",
				Usage: "`FILE` with the token that publishing over HTTP needs (default: none, publishing over HTTP is refused)"},
			&cli.StringFlag{Name: "trace-token-file",
				Usage: "`FILE` with the token with which hosts share traces of what is read first; later hosts fetch by them (default: none, only the publisher's traces)"},
			&cli.StringFlag{Name: "cache", Usage: "`SIZE` of the piece cache in memory (default: 256MiB)"},
			tradeFlag(),
			tlsFlag(), allowFlag(),
			&cli.StringFlag{Name: "http", Usage: "serve the status page, /metrics and /healthz on `HOST:PORT`, too, in plain HTTP, where --peer-tls and --peer-allow do not apply (default: none)"},
			&cli.IntFlag{Name: "max-peers", DefaultText: "80", Usage: "connect to at most `N` peers a release"},
			&cli.StringFlag{Name: "up", Usage: "send at most this `RATE` a second to peers and over HTTP, as counted on the link, such as 50MiB (default: unlimited)"},
			hostUpFlag(),
		},
		Action: runOrigin,
	}
}

func runOrigin(c *cli.Context) error {
	cfg, err := originConfig(c)
	if err != nil {
		return err
	}
	scheme := "http://"
	if cfg.Gate.Identity != nil {
		scheme = "https://"
	}
	manager := service.Find(cfg.Log)
	cfg.OnBeat = manager.Alive
	cfg.OnReady = func(http, peers string) {
		manager.Status("serving " + http + ", peers at " + peers)
		manager.Ready()
		// Whoever starts an origin on port 0 reads the ports here.
		err := result(c, struct {
			Schema int    `json:"schema"`
			URL    string `json:"url"`
			Peers  string `json:"peers"`
		}{schema, scheme + http, peers}, "origin ready: %s%s, peers at %s", scheme, http, peers)
		if err != nil {
			cfg.Log.Warn("cannot say on stdout that the origin is ready", "cause", err)
		}
	}
	defer manager.Stopping()
	return origin.Run(c.Context, cfg)
}

func originConfig(c *cli.Context) (cfg origin.Config, err error) {
	cfg.PublishTokenFile = c.String("publish-token-file")
	cfg.TraceTokenFile = c.String("trace-token-file")
	cfg.MaxPeers = c.Int("max-peers")
	cfg.Trade = c.Bool("trade")
	cfg.Version, _ = buildVersion()
	if cfg.Log, err = logger(c, c.App.ErrWriter); err != nil {
		return cfg, err
	}
	if err := checkPeers(c); err != nil {
		return cfg, err
	}
	if cfg.State, err = absolute(c.String("state")); err != nil {
		return cfg, err
	}
	if cfg.Listen, err = listenOf(c, "listen"); err != nil {
		return cfg, err
	}
	if cfg.PeerListen, err = listenOf(c, "peer-listen"); err != nil {
		return cfg, err
	}
	if cfg.HTTP, err = listenOf(c, "http"); err != nil {
		return cfg, err
	}
	if cfg.Gate, err = gateOf(c, false, cfg.Log); err != nil {
		return cfg, err
	}
	if cfg.CacheBytes, err = sizeOf(c, "cache"); err != nil {
		return cfg, err
	}
	return cfg, nil
}
