// Package doctor looks whether a host is fit to run dcfs, and says what to do
// where it is not.
//
// It must never change the host: what it writes or binds to try it is gone when
// it returns. It must never wait without a deadline, and one check that fails
// must not keep the others from being made.
package doctor

import (
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Level is how bad a finding is.
type Level string

// The levels. Only Fail keeps dcfs from doing its work.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// The names of the checks. Scripts read them.
const (
	Kernel = "kernel"
	FUSE   = "fuse"
	Limits = "limits"
	Ports  = "ports"
	Disk   = "disk"
	Run    = "run"
	Keys   = "keys"
	TLS    = "tls" // only with --peer-tls
	Origin = "origin"
	Clock  = "clock"
)

// Finding is the outcome of one check.
type Finding struct {
	Name  string `json:"name"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Try   string `json:"try,omitempty"`
}

// Config says what dcfs would use on this host.
type Config struct {
	Origins    []string // base URLs
	State      string   // directories
	Run        string
	Dest       string // where copies go; empty: below State
	Trusted    string
	TLS        string // directory of --peer-tls; empty for none
	PeerListen string // HOST:PORT; empty: the first free port of the usual ones
}

// patience bounds each check.
const patience = 5 * time.Second

// Examine makes all checks, side by side, and returns the findings in a fixed
// order.
func Examine(ctx context.Context, c Config) []Finding {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	checks := []func(context.Context) []Finding{
		func(context.Context) []Finding { return []Finding{kernel(), fuse(), limits()} },
		func(context.Context) []Finding { return []Finding{ports(c.PeerListen)} },
		func(ctx context.Context) []Finding { return within(ctx, Disk, func() []Finding { return disks(c) }) },
		func(ctx context.Context) []Finding {
			return within(ctx, Run, func() []Finding { return []Finding{runDir(c.Run)} })
		},
		func(ctx context.Context) []Finding {
			return within(ctx, Keys, func() []Finding { return []Finding{keys(c.Trusted)} })
		},
	}
	id, tls := certificate(c.TLS)
	if c.TLS != "" {
		checks = append(checks, func(context.Context) []Finding { return tls })
	}
	if len(c.Origins) == 0 {
		checks = append(checks, func(context.Context) []Finding {
			return []Finding{{Origin, Warn, "no origin is configured, so neither it nor the clock is looked at",
				"--origin http://HOST:7070, DCFS_ORIGIN, or origin: in the configuration file"}}
		})
	}
	for _, o := range c.Origins {
		checks = append(checks, func(ctx context.Context) []Finding { return originAt(ctx, o, id) })
	}
	found := make([][]Finding, len(checks))
	var wg sync.WaitGroup
	for i, check := range checks {
		wg.Go(func() { found[i] = check(ctx) })
	}
	wg.Wait()
	var all []Finding
	for _, f := range found {
		all = append(all, f...)
	}
	return all
}

// within gives up a check of a filesystem that hangs. The check then ends when
// the filesystem lets it, or with the process.
func within(ctx context.Context, name string, check func() []Finding) []Finding {
	done := make(chan []Finding, 1)
	go func() { done <- check() }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case f := <-done:
		return f
	case <-timer.C:
	case <-ctx.Done():
	}
	return []Finding{{name, Fail, "the filesystem does not answer", "look for a mount that hangs: dcfs status, findmnt"}}
}

// peersOf is the address of an origin's seeder, if it is the usual one.
func peersOf(origin string) string {
	u, err := url.Parse(origin)
	if err != nil {
		return ""
	}
	return net.JoinHostPort(strings.Trim(u.Hostname(), "[]"), "7071")
}
