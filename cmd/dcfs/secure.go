package main

import (
	"log/slog"

	"github.com/urfave/cli/v2"

	"dcfs/swarm/gate"
)

// tlsFlag is for everybody who speaks to an origin or to peers.
func tlsFlag() cli.Flag {
	return &cli.StringFlag{Name: "peer-tls", Usage: "mutual TLS with origins and peers: `DIR` with ca.pem, cert.pem and key.pem, read again when they change (default: no TLS of the fleet's own)"}
}

// allowFlag is for everybody whom others connect to.
func allowFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "peer-allow", Usage: "speak to addresses of this `NETWORK` only, such as 10.0.0.0/8; repeat or separate with commas for several (default: all)"}
}

// identityOf reads --peer-tls; nil without it. A process that resumes what
// another one held takes a certificate that has expired meanwhile.
func identityOf(c *cli.Context, resumed bool, log *slog.Logger) (*gate.Identity, error) {
	dir, err := absolute(c.String("peer-tls"))
	if dir == "" || err != nil {
		return nil, err
	}
	return gate.LoadIdentity(dir, resumed, log)
}

// clientIdentity is identityOf for commands that have no log.
func clientIdentity(c *cli.Context) (*gate.Identity, error) {
	return identityOf(c, false, slog.New(slog.DiscardHandler))
}

// gateOf reads who may connect, and how fast: --peer-tls, --peer-allow, --up,
// --down, --host-up and --host-down.
func gateOf(c *cli.Context, resumed bool, log *slog.Logger) (g *gate.Gate, err error) {
	g = &gate.Gate{Log: log}
	if g.Allow, err = gate.ParseNetworks(c.StringSlice("peer-allow")...); err != nil {
		return nil, usage("--peer-allow: "+err.Error(), helpOf(c))
	}
	if g.Rates, err = ratesOf(c); err != nil {
		return nil, err
	}
	g.Identity, err = identityOf(c, resumed, log)
	return g, err
}

func hostUpFlag() cli.Flag {
	return &cli.StringFlag{Name: "host-up", Usage: "`RATE` that all dcfs processes with this --run send together at most (default: unlimited)"}
}

// ratesOf reads the limits; a command that has no such flag has no such limit.
func ratesOf(c *cli.Context) (r gate.Rates, err error) {
	var rate [4]int64
	for i, flag := range []string{"up", "down", "host-up", "host-down"} {
		if rate[i], err = rateOf(c, flag); err != nil {
			return r, err
		}
	}
	run, err := absolute(c.String("run"))
	if err != nil {
		return r, err
	}
	hostUp, hostDown, err := gate.SharedLimits(run, rate[2], rate[3])
	if err != nil {
		return r, err
	}
	r.Up, r.Down = []*gate.Limit{gate.NewLimit(rate[0]), hostUp}, []*gate.Limit{gate.NewLimit(rate[1]), hostDown}
	return r, nil
}

// downRate is how much is received a second at most; 0 for no limit.
func downRate(c *cli.Context) (int64, error) {
	own, err := rateOf(c, "down")
	if err != nil {
		return 0, err
	}
	all, err := rateOf(c, "host-down")
	if all > 0 && (own == 0 || all < own) {
		own = all
	}
	return own, err
}
