package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestListGetMetainfo(t *testing.T) {
	_, url := newOrigin(t, map[string]string{"app/web-1": torrentA})
	c := clientFor(t, url+"/")
	list, err := c.List(t.Context())
	if err != nil || len(list) != 1 || list[0] != release("app/web-1", torrentA) {
		t.Errorf("list %+v, %v", list, err)
	}
	got, err := c.Get(t.Context(), "app/web-1")
	if err != nil || got != release("app/web-1", torrentA) {
		t.Errorf("get %+v, %v", got, err)
	}
	body, err := c.Metainfo(t.Context(), "app/web-1")
	if err != nil || string(body) != torrentA {
		t.Errorf("metainfo %q, %v", body, err)
	}
}

func TestSeveralOrigins(t *testing.T) {
	_, with := newOrigin(t, map[string]string{"web": torrentA})
	_, without := newOrigin(t, nil)
	down := downURL()
	for _, c := range []struct {
		origins []string
		want    error
	}{
		{[]string{down, without, with}, nil},
		{[]string{with, down}, nil},
		{[]string{down, without}, ErrUnknownRelease}, // somebody answered
		{[]string{down}, ErrUnreachable},
		{nil, ErrUsage},
		{[]string{"nonsense"}, ErrUsage},
	} {
		body, err := clientFor(t, c.origins...).Metainfo(t.Context(), "web")
		if !errors.Is(err, c.want) || (err == nil) != (string(body) == torrentA) {
			t.Errorf("%v: %q, %v; want %v", c.origins, body, err, c.want)
		}
		if err == nil {
			continue
		}
		for _, o := range c.origins {
			if !strings.Contains(err.Error(), o) {
				t.Errorf("%v does not name %s", err, o)
			}
		}
	}
}

func TestErrorsWrapOneSentinelAndSayWhatToTry(t *testing.T) {
	_, without := newOrigin(t, nil)
	_, err := clientFor(t, downURL(), without).Get(t.Context(), "web")
	for _, kind := range rank {
		if errors.Is(err, kind) != (kind == ErrUnknownRelease) {
			t.Errorf("is %v: %v", kind, errors.Is(err, kind))
		}
	}
	for _, part := range []string{"release web: unknown release", "refused", "no release web", "(publish it)"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	_, err = clientFor(t, downURL()).Get(t.Context(), "web")
	if !strings.Contains(err.Error(), "dcfs origin") {
		t.Errorf("%q does not say what to try", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = clientFor(t, without).Get(ctx, "web"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// endless writes until the other side has had enough.
func endless(w http.ResponseWriter, first string) {
	_, err := io.WriteString(w, first)
	for block := strings.Repeat(" ", 1<<20); err == nil; {
		_, err = io.WriteString(w, block)
	}
}

func TestHostileOrigins(t *testing.T) {
	good := `{"schema":1,"releases":[]}`
	text := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	hangUp := func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want error
	}{
		"web page":          {text(200, "<html>welcome</html>"), ErrBadAnswer},
		"empty":             {text(200, ""), ErrBadAnswer},
		"other schema":      {text(200, `{"schema":2,"releases":[]}`), ErrBadAnswer},
		"no schema":         {text(200, `{"releases":[]}`), ErrBadAnswer},
		"more behind":       {text(200, good+good), ErrBadAnswer},
		"bad version":       {text(200, `{"schema":1,"version":"../x","releases":[{"version":"../x"}]}`), ErrBadAnswer},
		"bad infohash":      {text(200, `{"schema":1,"version":"web","releases":[{"version":"web","infohash":"XY"}]}`), ErrBadAnswer},
		"negative":          {text(200, fmt.Sprintf(`{"schema":1,"version":"web","infohash":%q,"bytes":-1,"releases":[{"version":"web","bytes":-1}]}`, strings.Repeat("0", 40))), ErrBadAnswer},
		"another release":   {text(200, fmt.Sprintf(`{"schema":1,"version":"other","infohash":%q,"releases":[{"version":"x"}]}`, strings.Repeat("0", 40))), ErrBadAnswer},
		"endless":           {func(w http.ResponseWriter, _ *http.Request) { endless(w, "d") }, ErrBadAnswer},
		"endless error":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); endless(w, "{") }, ErrUnreachable},
		"claims to be long": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "999999999999") }, ErrBadAnswer},
		"cut short": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			text(200, "d")(w, nil)
		}, ErrUnreachable},
		"hangs up":           {hangUp, ErrUnreachable},
		"no content":         {text(204, ""), ErrBadAnswer},
		"redirect to itself": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, ErrUnreachable},
		"500":                {text(500, "oops"), ErrUnreachable},
		"429":                {text(429, ""), ErrUnreachable},
		"401":                {text(401, `{"error":"no"}`), ErrUnauthorized},
		"403":                {text(403, ""), ErrUnauthorized},
		"404":                {text(404, "<html>"), ErrUnknownRelease},
		"400":                {text(400, ""), ErrBadAnswer},
		"long header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}, ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			cl := clientFor(t, serve(t, c.h))
			_, listErr := cl.List(t.Context())
			_, getErr := cl.Get(t.Context(), "web")
			_, metaErr := cl.Metainfo(t.Context(), "web")
			for _, err := range []error{listErr, getErr, metaErr} {
				if !errors.Is(err, c.want) || name == "endless" && !errors.Is(err, errTooLong) {
					t.Errorf("%v, want %v", err, c.want)
				}
			}
		})
	}
}

// TestClosedDoor: an origin that lets this host not in closes the connection, which
// arrives as its end or as a reset.
func TestClosedDoor(t *testing.T) {
	for linger, name := range map[int]string{0: "reset", -1: "closed"} {
		t.Run(name, func(t *testing.T) {
			url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.(*net.TCPConn).SetLinger(linger)
				c.Close()
			})
			_, err := clientFor(t, url).List(t.Context())
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "--peer-allow") {
				t.Errorf("%v does not say why", err)
			}
		})
	}
}

func TestRedirects(t *testing.T) {
	elsewhere := 0
	other := serve(t, func(http.ResponseWriter, *http.Request) { elsewhere++ })
	_, err := clientFor(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other+r.URL.Path, http.StatusFound)
	})).List(t.Context())
	if !errors.Is(err, ErrBadAnswer) || !strings.Contains(err.Error(), "another host") || elsewhere != 0 {
		t.Errorf("%v; the other host was asked %d times", err, elsewhere)
	}
	o, _ := newOrigin(t, map[string]string{"web": torrentA})
	moved := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if path, old := strings.CutPrefix(r.URL.Path, "/old"); old {
			http.Redirect(w, r, path, http.StatusMovedPermanently)
			return
		}
		o.ServeHTTP(w, r)
	})
	if body, err := clientFor(t, moved+"/old").Metainfo(t.Context(), "web"); err != nil || string(body) != torrentA {
		t.Errorf("on the same host: %q, %v", body, err)
	}
}

func TestOriginsTextIsFitForATerminal(t *testing.T) {
	_, err := clientFor(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 404, ErrorResponse{Schema, "\x1b[2Jgone\n" + strings.Repeat("x", 10_000), "\x07bell"})
	})).Get(t.Context(), "web")
	if s := err.Error(); strings.ContainsAny(s, "\x1b\n\x07") || !strings.Contains(s, "gone") || len(s) > 1000 {
		t.Errorf("%q", s)
	}
}

func TestSilentOrigins(t *testing.T) {
	trickle := func(*http.Request) (*http.Response, error) {
		return respond(200, readerFunc(func(p []byte) (int, error) {
			time.Sleep(silentTimeout - time.Second)
			p[0] = ' '
			return 1, nil
		})), nil
	}
	for name, c := range map[string]struct {
		rt   transport
		took time.Duration
	}{
		"before the header": {func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, silentTimeout},
		"in the body": {func(r *http.Request) (*http.Response, error) {
			return respond(200, readerFunc(func([]byte) (int, error) {
				<-r.Context().Done()
				return 0, r.Context().Err()
			})), nil
		}, silentTimeout},
		"a byte now and then": {func(r *http.Request) (*http.Response, error) {
			res, err := trickle(r)
			body := res.Body
			res.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
				if r.Context().Err() != nil {
					return 0, r.Context().Err()
				}
				return body.Read(p)
			}))
			return res, err
		}, getTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				cl := &Client{Origins: []string{"http://x"}, HTTP: &http.Client{Transport: c.rt}}
				_, err := cl.List(t.Context())
				if took := time.Since(start); !errors.Is(err, ErrUnreachable) || took < c.took || took > c.took+silentTimeout {
					t.Errorf("%v after %v, want %v", err, took, c.took)
				}
			})
		})
	}
}
