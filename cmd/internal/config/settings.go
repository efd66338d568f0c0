package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"dcfs/swarm/gate"
)

// setting is a key of the file, named like its flag.
type setting struct {
	list  bool // may be a list
	store func(f *File, text string) error
}

// settings are all keys that a file may have.
var settings = map[string]setting{
	"origin":             {true, into(func(f *File) **[]string { return &f.Origin }, ParseOrigins)},
	"state":              {false, into(func(f *File) **string { return &f.State }, absolute)},
	"run":                {false, into(func(f *File) **string { return &f.Run }, absolute)},
	"trusted":            {false, into(func(f *File) **string { return &f.Trusted }, absolute)},
	"publish-token-file": {false, into(func(f *File) **string { return &f.PublishTokenFile }, absolute)},
	"trace-token-file":   {false, into(func(f *File) **string { return &f.TraceTokenFile }, absolute)},
	"cache":              {false, into(func(f *File) **int64 { return &f.Cache }, ParseSize)},
	"up":                 {false, into(func(f *File) **int64 { return &f.Up }, ParseRate)},
	"down":               {false, into(func(f *File) **int64 { return &f.Down }, ParseRate)},
	"host-up":            {false, into(func(f *File) **int64 { return &f.HostUp }, ParseRate)},
	"host-down":          {false, into(func(f *File) **int64 { return &f.HostDown }, ParseRate)},
	"max-peers":          {false, into(func(f *File) **int { return &f.MaxPeers }, count)},
	"listen":             {false, into(func(f *File) **string { return &f.Listen }, ParseListen)},
	"peer-listen":        {false, into(func(f *File) **string { return &f.PeerListen }, ParseListen)},
	"peer-tls":           {false, into(func(f *File) **string { return &f.PeerTLS }, absolute)},
	"peer-allow":         {true, into(func(f *File) **gate.Networks { return &f.PeerAllow }, networks)},
	"rack":               {false, into(func(f *File) **string { return &f.Rack }, rack)},
	"web-seed":           {true, into(func(f *File) **[]string { return &f.WebSeed }, ParseWebSeeds)},
	"linger":             {false, into(func(f *File) **time.Duration { return &f.Linger }, duration)},
	"linger-max":         {false, into(func(f *File) **time.Duration { return &f.LingerMax }, duration)},
	"read-timeout":       {false, into(func(f *File) **time.Duration { return &f.ReadTimeout }, duration)},
	"wait":               {false, into(func(f *File) **time.Duration { return &f.Wait }, duration)},
	"at-end":             {false, into(func(f *File) **string { return &f.AtEnd }, word("handover", "unmount", "keep"))},
	"log-level":          {false, into(func(f *File) **string { return &f.LogLevel }, word("debug", "info", "warn", "error"))},
	"log-format":         {false, into(func(f *File) **string { return &f.LogFormat }, word("text", "json"))},
}

// into makes a parser and a field into what stores a setting.
func into[T any](field func(*File) **T, parse func(string) (T, error)) func(*File, string) error {
	return func(f *File, text string) error {
		v, err := parse(text)
		if err != nil {
			return err
		}
		*field(f) = &v
		return nil
	}
}

// ParseOrigins reads base URLs of origins, separated by commas.
func ParseOrigins(s string) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimRight(strings.TrimSpace(part), "/")
		if strings.HasPrefix(part, "srv:") || strings.HasPrefix(part, "srvs:") { // whoever uses it looks closer
			out = append(out, part)
			continue
		}
		u, err := url.Parse(part)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("%q is no origin: want a URL such as http://origin:7070", part)
		}
		out = append(out, part)
	}
	return out, nil
}

// NoWebSeed instead of URLs of web seeds says that none is to be used.
const NoWebSeed = "none"

// ParseWebSeeds reads URLs of directories, separated by commas, or NoWebSeed.
func ParseWebSeeds(s string) ([]string, error) {
	if strings.TrimSpace(s) == NoWebSeed {
		return []string{NoWebSeed}, nil
	}
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		u, err := url.Parse(part)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("%q is no web seed: want a URL such as http://mirror/releases/, or %s", part, NoWebSeed)
		}
		out = append(out, part)
	}
	return out, nil
}

// absolute: a relative path in a file that many processes read would mean
// another place to each of them.
func absolute(s string) (string, error) {
	if !filepath.IsAbs(s) || strings.Contains(s, "\x00") {
		return "", fmt.Errorf("%q is no absolute path", s)
	}
	return filepath.Clean(s), nil
}

func networks(s string) (gate.Networks, error) { return gate.ParseNetworks(s) }

func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no duration: want a number and a unit, such as 500ms, 30s or 5m", s)
	}
	return d, nil
}

// MaxCount bounds settings that count something.
const MaxCount = 65535

func count(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > MaxCount {
		return 0, fmt.Errorf("%q is no number from 0 to %d", s, MaxCount)
	}
	return int(n), nil
}

func word(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", fmt.Errorf("%q is none of %s", s, strings.Join(words, ", "))
		}
		return s, nil
	}
}
