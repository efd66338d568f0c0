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

// gateOf reads --peer-tls and --peer-allow.
func gateOf(c *cli.Context, resumed bool, log *slog.Logger) (g *gate.Gate, err error) {
	g = &gate.Gate{Log: log}
	if g.Allow, err = gate.ParseNetworks(c.StringSlice("peer-allow")...); err != nil {
		return nil, usage("--peer-allow: "+err.Error(), helpOf(c))
	}
	g.Identity, err = identityOf(c, resumed, log)
	return g, err
}
