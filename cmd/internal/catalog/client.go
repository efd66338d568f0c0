package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"dcfs/swarm/gate"
)

// Bounds on what an origin may send, in bytes.
const (
	MaxMetainfo = 64 << 20
	maxJSON     = 16 << 20
	maxError    = 64 << 10
)

const releasesPath = "/v1/releases"

// Client asks origins. Its methods may be called concurrently. Several origins
// are asked in order until one gives what was asked; when none does, the error
// names each. Fields must not be changed after the first call, and a Client
// must not be copied.
type Client struct {
	Origins []string     // base URLs, see ParseOrigins
	HTTP    *http.Client // nil means one of our own; its CheckRedirect is not used
	Token   string       // for Publish; sent with nothing else
	// Identity is this host's, for origins that ask for one; nil for none. With
	// it, only https is spoken.
	Identity *gate.Identity

	once sync.Once
	http *http.Client
}

// Close closes idle connections. The Client may be used again.
func (c *Client) Close() { c.client().CloseIdleConnections() }

// ParseOrigins checks base URLs as given by flags or the environment: each
// word may hold several, separated by commas. It returns them without a slash
// at the end and each once. Errors wrap ErrUsage.
func ParseOrigins(words ...string) ([]string, error) {
	var out []string
	for s := range strings.SplitSeq(strings.Join(words, ","), ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		origin, err := parseOrigin(s)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, origin) {
			out = append(out, origin)
		}
	}
	return out, nil
}

func parseOrigin(s string) (string, error) {
	if IsSRV(s) {
		return parseSRV(s)
	}
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Contains(s, ",") { // which stands between origins
		return "", fmt.Errorf("%w: %q is not an origin's URL: write http://HOST:7070, or srv:NAME", ErrUsage, clip(s))
	}
	return u.Scheme + "://" + strings.ToLower(u.Host) + strings.TrimRight(u.EscapedPath(), "/"), nil
}

// Trackers returns the announce URL of each origin, in order.
func Trackers(origins []string) []string {
	var out []string
	for _, o := range origins {
		out = append(out, o+"/announce")
	}
	return out
}

// List returns the releases of the first origin that answers.
func (c *Client) List(ctx context.Context) ([]Release, error) {
	var list ListResponse
	err := each(c.Origins, "list of releases", func(origin string) error {
		list = ListResponse{}
		return c.getJSON(ctx, origin+releasesPath, &list)
	})
	if err != nil {
		return nil, err
	}
	return list.Releases, nil
}

// Get describes one release.
func (c *Client) Get(ctx context.Context, version Version) (Release, error) {
	var release Release
	err := each(c.Origins, "release "+string(version), func(origin string) (err error) {
		release, err = c.getAt(ctx, origin, version)
		return err
	})
	return release, err
}

func (c *Client) getAt(ctx context.Context, origin string, version Version) (Release, error) {
	r, err := c.responseAt(ctx, origin, version)
	return r.Release, err
}

func (c *Client) responseAt(ctx context.Context, origin string, version Version) (ReleaseResponse, error) {
	u, err := releaseURL(origin, version)
	if err != nil {
		return ReleaseResponse{}, err
	}
	var r ReleaseResponse
	if err := c.getJSON(ctx, u, &r); err != nil {
		return ReleaseResponse{}, err
	}
	if r.Version != version {
		return ReleaseResponse{}, fail(ErrBadAnswer, fmt.Errorf("it answered with release %s", r.Version))
	}
	return r, nil
}

// Sent returns how many bytes of a release all origins together have sent to
// peers since they started. Each must answer.
func (c *Client) Sent(ctx context.Context, version Version) (int64, error) {
	origins, err := ParseOrigins(c.Origins...)
	if err != nil {
		return 0, err
	}
	if len(origins) == 0 {
		return 0, fmt.Errorf("%w: no origin is known", ErrUsage)
	}
	var sum int64
	for _, origin := range origins {
		r, err := c.responseAt(ctx, origin, version)
		if err != nil {
			return 0, err
		}
		sum += r.Sent
	}
	return sum, nil
}

// Metainfo returns the metainfo of a release with its signature, as the origin
// sent it: not verified, only bounded and of the shape of a dictionary.
func (c *Client) Metainfo(ctx context.Context, version Version) ([]byte, error) {
	return c.metainfo(ctx, c.Origins, version)
}

func (c *Client) metainfo(ctx context.Context, origins []string, version Version) ([]byte, error) {
	var body []byte
	err := each(origins, "metainfo of release "+string(version), func(origin string) error {
		u, err := releaseURL(origin, version)
		if err != nil {
			return err
		}
		body, err = c.get(ctx, u+torrentExt, MaxMetainfo)
		if err == nil && !looksBencoded(body) {
			err = fail(ErrBadAnswer, errors.New("what it sent is no torrent"))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return body, nil
}

// looksBencoded tells a torrent from a web page; the real check is not ours.
func looksBencoded(b []byte) bool {
	return len(b) > 2 && b[0] == 'd' && b[len(b)-1] == 'e'
}

// releaseURL checks version again: a conversion makes a Version of anything.
func releaseURL(origin string, version Version) (string, error) {
	if _, err := ParseVersion(string(version)); err != nil {
		return "", fail(ErrUsage, err)
	}
	return origin + releasesPath + "/" + string(version), nil
}

// each tries the origins in order until one succeeds. A try whose error is
// marked by final ends it.
func each(origins []string, what string, try func(origin string) error) error {
	origins, err := ParseOrigins(origins...)
	if err != nil {
		return err
	}
	if len(origins) == 0 {
		return fmt.Errorf("%w: %s: no origin is known: give --origin URL or set DCFS_ORIGIN", ErrUsage, what)
	}
	var attempts []attempt
	for _, origin := range origins {
		err := try(origin)
		if err == nil {
			return nil
		}
		attempts = append(attempts, attempt{origin, err})
		if errors.As(err, new(final)) {
			break
		}
	}
	return newOriginsError(what, attempts)
}

// final marks a failure after which no other origin may be asked.
type final struct{ error }

// Unwrap returns the failure.
func (f final) Unwrap() error { return f.error }

// checker is an answer that knows what is wrong with it.
type checker interface{ check() error }

func (c *Client) getJSON(ctx context.Context, u string, into checker) error {
	body, err := c.get(ctx, u, maxJSON)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fail(ErrBadAnswer, errors.New("what it sent is not the JSON of an origin: "+clip(err.Error())))
	}
	if err := into.check(); err != nil {
		return fail(ErrBadAnswer, errors.New(clip(err.Error())))
	}
	return nil
}
