package catalog

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Origins by DNS: srv:NAME stands for the targets of NAME's SRV records
// (RFC 2782), which speak HTTP; srvs:NAME for such that speak HTTPS.
const (
	srvHTTP  = "srv:"
	srvHTTPS = "srvs:"
	// maxTargets bounds the origins that one name stands for.
	maxTargets = 16
)

// IsSRV says whether an origin is the name of SRV records.
func IsSRV(origin string) bool {
	return strings.HasPrefix(origin, srvHTTP) || strings.HasPrefix(origin, srvHTTPS)
}

func parseSRV(s string) (string, error) {
	scheme, name, _ := strings.Cut(s, ":")
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	ok := name != "" && len(name) <= 253
	for label := range strings.SplitSeq(name, ".") {
		ok = ok && label != "" && len(label) <= 63 && !strings.ContainsFunc(label, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		})
	}
	if !ok {
		return "", fmt.Errorf("%w: %q is no name of SRV records: write srv:_dcfs._tcp.example.net", ErrUsage, clip(s))
	}
	return scheme + ":" + name, nil
}

// Expand replaces the names of SRV records among origins, which ParseOrigins
// returned, by base URLs: those of lower priority first, and among equals by
// chance, in proportion to their weights. A name that does not resolve is passed
// over if another origin is left; otherwise the error wraps ErrUnreachable.
func Expand(ctx context.Context, origins []string) ([]string, error) {
	var out []string
	var failed error
	for _, o := range origins {
		list := []string{o}
		if IsSRV(o) {
			var err error
			if list, err = resolveSRV(ctx, o); err != nil {
				failed = err
			}
		}
		for _, u := range list {
			if !slices.Contains(out, u) {
				out = append(out, u)
			}
		}
	}
	if len(out) > 0 {
		failed = nil
	}
	return out, failed
}

func resolveSRV(ctx context.Context, origin string) (out []string, err error) {
	scheme, name, _ := strings.Cut(origin, ":")
	_, records, err := net.DefaultResolver.LookupSRV(ctx, "", "", name)
	if len(records) == 0 {
		if err == nil {
			err = fmt.Errorf("it has none")
		}
		return nil, fmt.Errorf("%w: the SRV records of %s: %w; name an origin by its URL, or mend the zone", ErrUnreachable, name, err)
	}
	if scheme == "srvs" {
		scheme = "https"
	} else {
		scheme = "http"
	}
	for _, r := range records[:min(len(records), maxTargets)] {
		target := strings.TrimSuffix(r.Target, ".")
		if target == "" { // RFC 2782: the service is not there
			continue
		}
		u, err := parseOrigin(scheme + "://" + net.JoinHostPort(target, strconv.Itoa(int(r.Port))))
		if err == nil {
			out = append(out, u)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: the SRV records of %s name no host", ErrUnreachable, name)
	}
	return out, nil
}
