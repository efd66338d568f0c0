package catalog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestResolve(t *testing.T) {
	_, url := newOrigin(t, map[string]string{"app/web": torrentA, "web": torrentA})
	_, other := newOrigin(t, nil)
	t.Chdir(t.TempDir())
	for name, body := range map[string]string{"web": torrentB, "x.torrent": torrentB, "d/y": torrentB, "d/z.torrent": torrentB} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(body), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	both := []string{other + "/announce", url + "/announce"}
	turned := []string{url + "/announce", other + "/announce"}
	c := clientFor(t, other, url)
	for _, test := range []struct {
		word string
		want Source
	}{
		{"web", Source{Version: "web", Metainfo: []byte(torrentA), Trackers: both}}, // not the file
		{"app/web", Source{Version: "app/web", Metainfo: []byte(torrentA), Trackers: both}},
		{url + "/v1/releases/app/web", Source{Version: "app/web", Metainfo: []byte(torrentA), Trackers: turned}},
		{url + "/v1/releases/app/web.torrent", Source{Version: "app/web", Metainfo: []byte(torrentA), Trackers: turned}},
		{"HTTP" + url[4:] + "/v1/releases/app%2Fweb", Source{Version: "app/web", Metainfo: []byte(torrentA), Trackers: turned}},
		{"./web", Source{Metainfo: []byte(torrentB)}},
		{"x.torrent", Source{Metainfo: []byte(torrentB)}},
		{"./d/y", Source{Metainfo: []byte(torrentB)}},
		{"d/z.torrent", Source{Metainfo: []byte(torrentB)}},
		{"magnet:?xt=urn:btih:00", Source{Magnet: "magnet:?xt=urn:btih:00"}},
	} {
		got, err := Resolve(t.Context(), test.word, Options{Client: c})
		if err != nil || got.Version != test.want.Version || !bytes.Equal(got.Metainfo, test.want.Metainfo) ||
			got.Magnet != test.want.Magnet || !slices.Equal(got.Trackers, test.want.Trackers) {
			t.Errorf("%s: %+v, %v", test.word, got, err)
		}
	}
}

func TestResolveErrors(t *testing.T) {
	_, url := newOrigin(t, nil)
	dir := t.TempDir()
	fifo, page, huge := filepath.Join(dir, "fifo.torrent"), filepath.Join(dir, "page.torrent"), filepath.Join(dir, "huge.torrent")
	f, err := os.Create(huge)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(syscall.Mkfifo(fifo, 0o600), os.WriteFile(page, []byte("<html>"), 0o600), f.Truncate(MaxMetainfo+1), f.Close())
	if err != nil {
		t.Fatal(err)
	}
	c := clientFor(t, url)
	for word, want := range map[string]error{
		"web":                                ErrUnknownRelease,
		url + "/v1/releases/web":             ErrUnknownRelease,
		"nosuch.torrent":                     ErrUnknownRelease,
		dir + "/nosuch.torrent":              ErrUnknownRelease,
		"":                                   ErrUsage,
		"a b":                                ErrUsage,
		".hidden":                            ErrUsage,
		dir + "/nosuch":                      ErrUsage,
		"ftp://x/v1/releases/web":            ErrUsage,
		"http://x/web":                       ErrUsage,
		"http:///v1/releases/web":            ErrUsage,
		"http://u:p@x/v1/releases/web":       ErrUsage,
		"http://x/v1/releases/../web":        ErrUsage,
		"http://x/v1/releases/%2e%2e":        ErrUsage,
		"http://x/v1/releases/web?x=y":       ErrUsage,
		"http://x/v1/releases/%zz":           ErrUsage,
		"http://x/v1/releases/a.torrent/":    ErrUsage,
		"magnet:" + strings.Repeat("x", 1e5): ErrUsage,
		dir + "/":                            ErrUsage,
		fifo:                                 ErrUsage,
		page:                                 ErrBadAnswer,
		huge:                                 ErrBadAnswer,
	} {
		if src, err := Resolve(t.Context(), word, Options{Client: c}); !errors.Is(err, want) || src.Metainfo != nil {
			t.Errorf("%.60s: %v, want %v", word, err, want)
		}
	}
	if _, err := Resolve(t.Context(), "web", Options{}); !errors.Is(err, ErrUsage) {
		t.Errorf("without a client: %v", err)
	}
}

func TestResolveTriesAgainWhileNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		rt := transport(func(*http.Request) (*http.Response, error) {
			if tries++; tries < 8 {
				return nil, syscall.ECONNREFUSED
			}
			return respond(200, strings.NewReader(torrentA)), nil
		})
		var log bytes.Buffer
		o := Options{
			Client: &Client{Origins: []string{"http://x"}, HTTP: &http.Client{Transport: rt}},
			Log:    slog.New(slog.NewTextHandler(&log, nil)),
		}
		start := time.Now()
		src, err := Resolve(t.Context(), "web", o)
		if err != nil || string(src.Metainfo) != torrentA || tries != 8 {
			t.Fatalf("%q, %v after %d tries", src.Metainfo, err, tries)
		}
		// The seven pauses are 0.25 s doubled up to 5 s, half of each random.
		if took := time.Since(start); took < 8*time.Second || took > 18*time.Second {
			t.Errorf("took %v", took)
		}
		if n := strings.Count(log.String(), "trying again"); n != 7 {
			t.Errorf("%d lines of log", n)
		}
	})
}

func TestResolveGivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		rt    transport
		want  error
		ctx   error  // what of ctx the error wraps
		part  string // of the message
		tries int    // 0 is any number
	}{
		"refused": {func(*http.Request) (*http.Response, error) { return nil, syscall.ECONNREFUSED },
			ErrUnreachable, context.DeadlineExceeded, "connection refused", 0},
		"broken": {func(*http.Request) (*http.Response, error) { return respond(503, strings.NewReader("")), nil },
			ErrUnreachable, context.DeadlineExceeded, "503", 0},
		"silent": {func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, ErrUnreachable, context.DeadlineExceeded, "silent", 0},
		"404": {func(*http.Request) (*http.Response, error) { return respond(404, strings.NewReader("")), nil },
			ErrUnknownRelease, nil, "404", 1},
		"nonsense": {func(*http.Request) (*http.Response, error) { return respond(200, strings.NewReader("x")), nil },
			ErrBadAnswer, nil, "no torrent", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				counted := transport(func(r *http.Request) (*http.Response, error) {
					tries++
					return c.rt(r)
				})
				ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
				defer cancel()
				start := time.Now()
				cl := &Client{Origins: []string{"http://x"}, HTTP: &http.Client{Transport: counted}}
				_, err := Resolve(ctx, "web", Options{Client: cl})
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.part) {
					t.Errorf("%v, want %v with %q", err, c.want, c.part)
				}
				if c.ctx != nil && (!errors.Is(err, c.ctx) || time.Since(start) != 25*time.Second) {
					t.Errorf("%v after %v", err, time.Since(start))
				}
				if c.tries != 0 && tries != c.tries {
					t.Errorf("%d tries", tries)
				}
			})
		})
	}
}
