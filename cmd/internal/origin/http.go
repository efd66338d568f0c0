package origin

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dcfs/cmd/internal/board"
	"dcfs/cmd/internal/catalog"
	"dcfs/cmd/internal/control"
	"dcfs/fs/prefetch"
	"dcfs/fs/release"
	"dcfs/swarm/gate"
	"dcfs/swarm/metainfo"
	"dcfs/swarm/tracker"
)

// service answers the origin's HTTP requests.
type service struct {
	shelf   *shelf
	tracker *tracker.Tracker
	token   string
	traces  *traces
	// traceToken is what hosts prove themselves with that share traces; empty
	// takes none.
	traceToken string
	gate       *gate.Gate
	log        *slog.Logger
	started    time.Time
	version    string // of this program
	requests   *requests
	figures    http.Handler // of /metrics
	board      *board.Board
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern, name string, h http.HandlerFunc) { mux.Handle(pattern, s.requests.counted(name, h)) }
	handle("GET /v1/releases", "list", s.list)
	handle("GET /v1/releases/{version...}", "release", s.get)
	handle("PUT /v1/releases/{version...}", "publish", s.put)
	handle("GET /announce", "announce", s.tracker.Announce)
	handle("GET /scrape", "scrape", s.tracker.Scrape)
	handle("GET /data/{path...}", "webseed", s.data)
	handle("POST "+control.ReportPath, "report", s.board.Receive)
	s.watched(mux)
	return mux
}

// watched adds what people and monitoring look at: nothing of a release's
// content, and nothing that changes anything.
func (s *service) watched(mux *http.ServeMux) {
	mux.Handle("GET /metrics", s.figures)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	for pattern, h := range s.board.Handlers() {
		mux.Handle(pattern, s.requests.counted("board", h))
	}
}

func (s *service) list(w http.ResponseWriter, r *http.Request) {
	out := catalog.ListResponse{Schema: catalog.Schema, Releases: []catalog.Release{}}
	for _, rel := range s.shelf.all() {
		out.Releases = append(out.Releases, rel.about)
	}
	sort.Slice(out.Releases, func(i, j int) bool { return out.Releases[i].Version < out.Releases[j].Version })
	s.reply(w, http.StatusOK, out)
}

// describe says what the index tells of a release. The statement is passed on
// unchecked: whoever uses the release checks its signature.
func describe(version string, mi *metainfo.Metainfo) catalog.Release {
	out := catalog.Release{
		Version: catalog.Version(version), Infohash: hexHash(mi.InfoHash), Bytes: mi.Tree.Bytes(), Files: mi.Tree.Files(),
		Pieces: mi.Layout.Count(), PieceLength: mi.Layout.Length, Signed: len(mi.Signature) > 0,
	}
	if c, ok := release.ReadClaims(mi); ok {
		out.KeyID, out.Created, out.Expires = c.KeyID, c.Created, c.Expires
	}
	return out
}

func (s *service) get(w http.ResponseWriter, r *http.Request) {
	if version, ok := strings.CutSuffix(r.PathValue("version"), ".trace"); ok {
		s.getTrace(w, r, version)
		return
	}
	version, torrent := strings.CutSuffix(r.PathValue("version"), ".torrent")
	rel, err := s.shelf.find(r.Context(), version)
	if err != nil {
		s.fail(w, err)
		return
	}
	if !torrent {
		s.reply(w, http.StatusOK, catalog.ReleaseResponse{Schema: catalog.Schema, Release: rel.about, Sent: rel.swarm.Stats().Sent})
		return
	}
	mi := *rel.mi
	base := baseURL(r)
	mi.Trackers = []string{base + "/announce"}
	mi.WebSeeds = []string{base + path.Join("/data", path.Dir(version)) + "/"} // clients append the last segment
	w.Header().Set("Content-Type", "application/x-bittorrent")
	_, _ = w.Write(mi.Encode())
}

// baseURL is how the asker calls this origin.
func baseURL(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// put takes a release: the length of its metainfo, the metainfo, the payload.
func (s *service) put(w http.ResponseWriter, r *http.Request) {
	if version, ok := strings.CutSuffix(r.PathValue("version"), ".trace"); ok {
		s.putTrace(w, r, version)
		return
	}
	if err := s.authorise(r); err != nil {
		s.fail(w, err)
		return
	}
	changed, err := s.receive(r.Context(), r.PathValue("version"), patient{r.Body, http.NewResponseController(w)})
	if err != nil {
		s.fail(w, err)
		hearOut(w, r.Body)
		return
	}
	if _, err := s.shelf.find(r.Context(), r.PathValue("version")); err != nil {
		s.fail(w, err)
		return
	}
	code := http.StatusOK
	if changed {
		code = http.StatusCreated
	}
	s.reply(w, code, publishAnswer{Schema: catalog.Schema, Changed: changed})
}

// patient is the body of an upload: each read of it has a time, so that a publisher
// that says nothing more does not hold the version for ever.
type patient struct {
	io.Reader
	c *http.ResponseController
}

const uploadPause = 2 * time.Minute // it may read from a slow disk

// Read takes the deadline away at the end: what comes then takes its time, and the
// server listens meanwhile whether the publisher goes away.
func (p patient) Read(b []byte) (int, error) {
	_ = p.c.SetReadDeadline(time.Now().Add(uploadPause)) // not every writer can; the server's can
	n, err := p.Reader.Read(b)
	if err != nil {
		_ = p.c.SetReadDeadline(time.Time{})
	}
	return n, err
}

// hearOut sends a refusal at once and then listens for a moment: who is still sending
// would find the connection reset, and never read why.
func hearOut(w http.ResponseWriter, body io.Reader) {
	c := http.NewResponseController(w)
	_ = c.Flush() // it and what follows fail when nobody is there any more
	_ = c.SetReadDeadline(time.Now().Add(hearOutFor))
	_, _ = io.Copy(io.Discard, body)
}

const hearOutFor = 2 * time.Second

// publishAnswer answers a PUT.
type publishAnswer struct {
	Schema  int  `json:"schema"`
	Changed bool `json:"changed"`
}

func (s *service) authorise(r *http.Request) error {
	if s.token == "" {
		return fmt.Errorf("%w: this origin takes no releases over HTTP; start it with --publish-token-file", catalog.ErrUnauthorized)
	}
	if !carries(r, s.token) {
		return fmt.Errorf("%w: the publish token is missing or wrong", catalog.ErrUnauthorized)
	}
	return nil
}

// carries reports whether the request carries the token. Nobody holds an empty
// one.
func carries(r *http.Request, token string) bool {
	given := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token != "" && subtle.ConstantTimeCompare([]byte(given), []byte(token)) == 1
}

func (s *service) receive(ctx context.Context, version string, body io.Reader) (bool, error) {
	raw, err := catalog.ReadUpload(body)
	if err != nil {
		return false, err
	}
	mi, err := metainfo.Parse(raw)
	if err != nil {
		return false, err
	}
	return s.shelf.lib.Add(ctx, version, mi, body)
}

func (s *service) reply(w http.ResponseWriter, code int, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		s.log.Error("a request failed", "cause", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(code)
	if _, err := w.Write(append(text, '\n')); err != nil {
		s.log.Debug("writing an answer", "cause", err)
	}
}

// statuses is the one place where an error becomes an HTTP status.
var statuses = []struct {
	err  error
	code int
}{
	{catalog.ErrUnknownRelease, http.StatusNotFound},
	{catalog.ErrUsage, http.StatusBadRequest},
	{catalog.ErrConflict, http.StatusConflict},
	{catalog.ErrUnauthorized, http.StatusForbidden},
	{metainfo.ErrInvalid, http.StatusUnprocessableEntity},
	{prefetch.ErrTrace, http.StatusUnprocessableEntity},
	{ErrPayload, http.StatusUnprocessableEntity},
	{ErrBusy, http.StatusServiceUnavailable},
	{syscall.ENOSPC, http.StatusInsufficientStorage},
	{os.ErrDeadlineExceeded, http.StatusRequestTimeout},
}

func (s *service) fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	for _, row := range statuses {
		if errors.Is(err, row.err) {
			code = row.code
			break
		}
	}
	if code == http.StatusInternalServerError {
		s.log.Error("a request failed", "cause", err)
	}
	s.reply(w, code, catalog.ErrorResponse{Schema: catalog.Schema, Error: err.Error()})
}
