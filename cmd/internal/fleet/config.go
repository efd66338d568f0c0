package fleet

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// MaxHosts bounds a list of hosts.
	MaxHosts = 100_000
	maxLine  = 1024
)

// ParseHosts reads a list of hosts: one on a line, as ssh takes it
// (user@host); blank lines and what follows a # do not count.
func ParseHosts(r io.Reader) ([]string, error) {
	var hosts []string
	seen := map[string]bool{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		host := strings.TrimSpace(text)
		switch {
		case host == "":
			continue
		case strings.HasPrefix(host, "-") || !utf8.ValidString(host) || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			return nil, fmt.Errorf("%w: line %d: %q is no host: one on a line, as ssh takes it", ErrConfig, n, host)
		case seen[host]:
			return nil, fmt.Errorf("%w: line %d: %s is there twice", ErrConfig, n, host)
		case len(hosts) == MaxHosts:
			return nil, fmt.Errorf("%w: more than %d hosts", ErrConfig, MaxHosts)
		}
		seen[host] = true
		hosts = append(hosts, host)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: the list of hosts: %w", ErrConfig, err)
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("%w: the list of hosts is empty", ErrConfig)
	}
	return hosts, nil
}

// ParseQuorum reads how many of n hosts: a number, or a percentage, which is
// rounded up.
func ParseQuorum(text string, n int) (int, error) {
	number, percent := strings.CutSuffix(text, "%")
	q, err := strconv.Atoi(number)
	limit := n
	if percent {
		limit = 100
	}
	if err != nil || q < 1 || q > limit {
		return 0, fmt.Errorf("%w: a quorum of %q among %d hosts: take a number from 1 to %d, or 1%% to 100%%", ErrConfig, text, n, n)
	}
	if percent {
		q = (q*n + 99) / 100
	}
	return q, nil
}

// Check says whether the deployment can be meant as it is given, but for what only
// hosts know. The error wraps ErrConfig.
func (c Config) Check() error {
	for what, p := range map[string]string{"mount": c.Mount, "dest": c.Dest, "current": c.Current} {
		if !path.IsAbs(p) || path.Clean(p) == "/" {
			return fmt.Errorf("%w: --%s %q: an absolute path on the hosts is needed", ErrConfig, what, p)
		}
	}
	if path.Clean(c.Mount) == path.Clean(c.Dest) {
		return fmt.Errorf("%w: --mount and --dest are both %s: give the copies a place of their own", ErrConfig, c.Dest)
	}
	for what, d := range map[string]time.Duration{"timeout": c.Timeout, "call-timeout": c.CallTimeout} {
		if d <= 0 {
			return fmt.Errorf("%w: --%s %s: nothing can be done in no time", ErrConfig, what, d)
		}
	}
	if c.Parallel < 1 {
		return fmt.Errorf("%w: --parallel %d: at least one host at a time", ErrConfig, c.Parallel)
	}
	if c.Quorum < 1 || c.Quorum > len(c.Hosts) || c.MaxUnhealthy < 0 {
		return fmt.Errorf("%w: quorum %d, at most %d unhealthy, among %d hosts", ErrConfig,
			c.Quorum, c.MaxUnhealthy, len(c.Hosts))
	}
	return nil
}
