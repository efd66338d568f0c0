package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/catalog"
	"dcfs/cmd/internal/config"
	"dcfs/cmd/internal/fleet"
)

// linkRates reads what the links give. A limit that the hosts are told is what
// they give at most.
func linkRates(c *cli.Context) (r fleet.Rates, err error) {
	if r.OriginUp, err = rateOf(c, "origin-up"); err != nil {
		return r, err
	}
	if r.HostUp, err = rateOf(c, "host-up"); err != nil {
		return r, err
	}
	if r.HostDown, err = rateOf(c, "host-down"); err != nil {
		return r, err
	}
	for _, flag := range c.StringSlice("host-flag") {
		for prefix, rate := range map[string]*int64{"--up=": &r.HostUp, "--down=": &r.HostDown} {
			text, ok := strings.CutPrefix(flag, prefix)
			if !ok {
				continue
			}
			if n, err := config.ParseRate(text); err == nil && n > 0 && (*rate == 0 || n < *rate) {
				*rate = n // else the host says what is wrong with it
			}
		}
	}
	return r, nil
}

// sentBy returns what asks the origins how much they have sent; nil without any.
func sentBy(c *cli.Context) (func(context.Context) (int64, error), error) {
	origins, err := originsOf(c)
	if err != nil || len(origins) == 0 {
		return nil, err
	}
	identity, err := clientIdentity(c)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (int64, error) {
		client := &catalog.Client{Origins: origins, Identity: identity}
		defer client.Close()
		return client.Sent(ctx, catalog.Version(c.String("as")))
	}, nil
}

// deployTimes says how long it took, what the least was that it could take, and
// who was slow and why.
func deployTimes(text *strings.Builder, r fleet.Report) {
	if r.Ready.Max > 0 {
		fmt.Fprintf(text, "\nready after %.1f s (p50), %.1f s (p99), %.1f s (max)", r.Ready.P50, r.Ready.P99, r.Ready.Max)
		switch b := r.Bound; {
		case b.Seconds > 0:
			fmt.Fprintf(text, "; at least %.1f s for %d hosts by the rates of the links, so %.2f times the bound", b.Seconds, b.Hosts, r.Ready.Max/b.Seconds)
		default:
			fmt.Fprintf(text, "; the bound is unknown: %s", b.Unknown)
		}
	}
	if r.Swapped.Max > 0 {
		fmt.Fprintf(text, "\nswapped after %.1f s (p50), %.1f s (p99), %.1f s (max)", r.Swapped.P50, r.Swapped.P99, r.Swapped.Max)
	}
	if r.Back > 0 {
		fmt.Fprintf(text, "\nwent back within %.1f s", r.Back)
	}
	if r.Copies != nil {
		fmt.Fprintf(text, "\nthe origin has sent %.2f copies", *r.Copies)
	} else {
		text.WriteString("\nhow much the origin has sent is unknown: it does not answer")
	}
	for _, s := range r.Slow {
		fmt.Fprintf(text, "\nslow: %s, %.1f s: %s", s.Host, s.Seconds, waitedFor(s))
	}
}

// waitedFor says what a slow host waited for.
func waitedFor(s fleet.Slow) string {
	var parts []string
	for _, h := range s.Held {
		if d := time.Duration(h.MS) * time.Millisecond; d >= 100*time.Millisecond {
			parts = append(parts, fmt.Sprintf("%s %.1f s", h.Kind, d.Seconds()))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "it did not say what it waited for")
	}
	text := strings.Join(parts, ", ")
	if s.Now != "" {
		text += "; at the end " + s.Now
	}
	return text
}
