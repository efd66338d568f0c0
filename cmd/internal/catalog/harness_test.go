package catalog

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	torrentA = "d8:announce3:x/y4:infod4:name1:aee"
	torrentB = "d4:infod4:name1:bee"
	token    = "s3cret"
)

// fakeOrigin speaks the API from a map.
type fakeOrigin struct {
	mu       sync.Mutex
	torrents map[string]string // by version
	payloads map[string]string
	puts     int
	blind    bool // GET of a description knows nothing: a race with another publisher
}

func newOrigin(t *testing.T, torrents map[string]string) (*fakeOrigin, string) {
	o := &fakeOrigin{torrents: torrents, payloads: map[string]string{}}
	if torrents == nil {
		o.torrents = map[string]string{}
	}
	return o, serve(t, o.ServeHTTP)
}

func serve(t *testing.T, h http.HandlerFunc) string {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// downURL is the address of a server that has gone.
func downURL() string {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	return srv.URL
}

func clientFor(t *testing.T, origins ...string) *Client {
	c := &Client{Origins: origins, Token: token}
	t.Cleanup(c.Close)
	return c
}

func release(version, torrent string) Release {
	h, _ := infohash([]byte(torrent))
	return Release{
		Version: Version(version), Infohash: h, Bytes: 7, Files: 1, Pieces: 1, PieceLength: 1 << 18,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Signed: true, KeyID: "0123456789ABCDEF",
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (o *fakeOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/v1/releases")
	name = strings.TrimPrefix(name, "/")
	version, wantTorrent := strings.CutSuffix(name, ".torrent")
	torrent, there := o.torrents[version]
	switch {
	case r.Method == http.MethodPut:
		o.put(w, r, name)
	case name == "":
		list := ListResponse{Schema: Schema}
		for v, t := range o.torrents {
			list.Releases = append(list.Releases, release(v, t))
		}
		writeJSON(w, http.StatusOK, list)
	case !there || o.blind:
		writeJSON(w, http.StatusNotFound, ErrorResponse{Schema, "no release " + version, "publish it"})
	case wantTorrent:
		_, _ = io.WriteString(w, torrent)
	default:
		writeJSON(w, http.StatusOK, ReleaseResponse{Schema: Schema, Release: release(version, torrent)})
	}
}

func (o *fakeOrigin) put(w http.ResponseWriter, r *http.Request, version string) {
	o.puts++
	if r.Header.Get("Authorization") != "Bearer "+token {
		writeJSON(w, http.StatusUnauthorized, ErrorResponse{Schema, "no such token", ""})
		return
	}
	if r.Header.Get("Content-Type") != UploadType {
		writeJSON(w, http.StatusUnsupportedMediaType, ErrorResponse{Schema, "what is this", ""})
		return
	}
	metainfo, err := ReadUpload(r.Body)
	if err != nil {
		writeJSON(w, http.StatusBadRequest, ErrorResponse{Schema, err.Error(), ""})
		return
	}
	if old, there := o.torrents[version]; there {
		if old == string(metainfo) {
			w.WriteHeader(http.StatusOK)
		} else {
			writeJSON(w, http.StatusConflict, ErrorResponse{Schema, "taken", ""})
		}
		return
	}
	payload, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	o.torrents[version], o.payloads[version] = string(metainfo), string(payload)
	w.WriteHeader(http.StatusCreated)
}

// transport is a RoundTripper without a network, for tests with virtual time.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func respond(status int, body io.Reader) *http.Response {
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(body), ContentLength: -1,
	}
}

// readerFunc is a Read.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
