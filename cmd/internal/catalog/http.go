package catalog

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"dcfs/swarm/gate"
)

// How long an origin may be silent. Waits for a whole answer are bounded too,
// so that a byte now and then does not hold us for ever.
const (
	connectTimeout = 5 * time.Second
	silentTimeout  = 10 * time.Second // until the header, and between reads of the body
	getTimeout     = 5 * time.Minute  // a whole GET; 64 MiB at 220 kB/s
	maxRedirects   = 3
)

var (
	errSilent   = errors.New("it is silent")
	errRedirect = errors.New("it redirects to another host")
	errTooLong  = errors.New("its answer is longer than any real one")
)

// client returns the HTTP client with our rule for redirects.
func (c *Client) client() *http.Client {
	c.once.Do(func() {
		h := http.Client{Transport: c.Identity.Secure(newTransport())}
		if c.HTTP != nil {
			h = *c.HTTP
		}
		h.CheckRedirect = sameHost
		c.http = &h
	})
	return c.http
}

// newTransport goes through no proxy: whoever cannot reach the origin cannot
// reach its peers either.
func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:           gate.Dialer(connectTimeout).DialContext,
		TLSHandshakeTimeout:   connectTimeout,
		ExpectContinueTimeout: 2 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   2,
		DisableCompression:    true,
		ForceAttemptHTTP2:     true,

		MaxResponseHeaderBytes: 64 << 10,
	}
}

func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if req.URL.Host != first.Host || req.URL.Scheme != first.Scheme {
		return errRedirect
	}
	if len(via) > maxRedirects {
		return errors.New("it redirects for ever")
	}
	return nil
}

// do sends a request; with an identity, over TLS only.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	if c.Identity != nil && req.URL.Scheme != "https" {
		return nil, fail(ErrUsage, fmt.Errorf("with --peer-tls, origins are spoken to over TLS: write https://%s", req.URL.Host))
	}
	return c.client().Do(req)
}

// watch cancels a request when a single wait is too long.
type watch struct {
	timer *time.Timer
	limit time.Duration
}

// newWatch starts with a wait of limit; stop must be called.
func newWatch(ctx context.Context, limit time.Duration) (_ context.Context, w *watch, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w = &watch{limit: limit, timer: time.AfterFunc(limit, func() { cancel(errSilent) })}
	return ctx, w, func() { w.timer.Stop(); cancel(nil) }
}

// next starts the next wait.
func (w *watch) next() { w.timer.Reset(w.limit) }

// body makes every read of r a wait of its own.
func (w *watch) body(r io.Reader) io.Reader { return watchedBody{r, w} }

type watchedBody struct {
	r io.Reader
	w *watch
}

func (b watchedBody) Read(p []byte) (int, error) {
	b.w.next()
	return b.r.Read(p)
}

// get fetches one URL. Every error is a *failure.
func (c *Client) get(ctx context.Context, u string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, getTimeout)
	defer cancel()
	ctx, w, stop := newWatch(ctx, silentTimeout)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, fail(ErrUsage, err)
	}
	res, err := c.do(req)
	if err != nil {
		return nil, transportFailure(ctx, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, statusFailure(res, w)
	}
	if res.ContentLength > limit {
		return nil, fail(ErrBadAnswer, errTooLong)
	}
	body, err := io.ReadAll(io.LimitReader(w.body(res.Body), limit+1))
	if err != nil {
		return nil, transportFailure(ctx, err)
	}
	if int64(len(body)) > limit {
		return nil, fail(ErrBadAnswer, errTooLong)
	}
	return body, nil
}

// transportFailure judges an exchange that came to no end. The cause that we
// gave ourselves says more than "context canceled".
func transportFailure(ctx context.Context, err error) error {
	var (
		broken      *failure
		certificate *tls.CertificateVerificationError
		refused     *net.OpError
		noTLS       tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &broken): // our own, from inside a request's body
		return broken
	case errors.Is(err, errRedirect):
		return fail(ErrBadAnswer, errRedirect)
	case errors.As(err, &certificate): // a later try will end the same
		return &failure{kind: ErrBadAnswer, detail: err, hint: "its certificate has to come from a CA that --peer-tls has, and be for the host of the URL"}
	case errors.As(err, &noTLS), errors.Is(err, http.ErrSchemeMismatch):
		return &failure{kind: ErrBadAnswer, detail: errors.New("it speaks no TLS"), hint: "write http:// in its URL, or start it with --peer-tls"}
	case errors.As(err, &refused) && refused.Op == "remote error": // a TLS alert: it wants another certificate than ours, or one at all
		return &failure{kind: ErrUnauthorized, detail: err, hint: "give this host's certificate with --peer-tls DIR"}
	case errors.Is(context.Cause(ctx), errSilent):
		return fail(ErrUnreachable, errSilent)
	}
	f := &failure{kind: ErrUnreachable, detail: err}
	// As an origin does that wants TLS, or no host of this network: which of the two
	// it is depends on who was faster.
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		f.hint = "check that `dcfs origin` runs there; one with --peer-tls wants https:// in its URL and --peer-tls here, one with --peer-allow this host's network in that"
	}
	return f
}

// statusFailure judges an answer that is not the one that was asked for.
func statusFailure(res *http.Response, w *watch) *failure {
	f := &failure{kind: statusKind(res.StatusCode)}
	f.detail = fmt.Errorf("HTTP status %d", res.StatusCode)
	body, err := io.ReadAll(io.LimitReader(w.body(res.Body), maxError))
	var e ErrorResponse
	if err == nil && json.Unmarshal(body, &e) == nil && e.Error != "" {
		f.detail = fmt.Errorf("HTTP status %d: %s", res.StatusCode, clip(e.Error))
		f.hint = clip(e.Hint)
	}
	return f
}

func statusKind(status int) error {
	switch {
	case status == http.StatusNotFound, status == http.StatusGone:
		return ErrUnknownRelease
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return ErrUnauthorized
	case status == http.StatusConflict:
		return ErrConflict
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return ErrUnreachable
	}
	return ErrBadAnswer
}
