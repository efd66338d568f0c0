package board

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"dcfs/cmd/internal/control"
)

// maxPosted is how many reports are read at the same time.
const maxPosted = 16

//go:embed page.html page.css page.js
var assets embed.FS

// policy lets the page have its own script and style, ask this server, and
// nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handlers are what a board answers, by the patterns of http.ServeMux. Reports
// are taken by Receive, which a node has no use for.
func (b *Board) Handlers() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /{$}":      b.page,
		"GET /page.js":  asset("page.js", "text/javascript; charset=utf-8"),
		"GET /page.css": asset("page.css", "text/css; charset=utf-8"),
		"GET /v1/board": b.overview,
		"GET /v1/hosts": b.detail,
	}
}

// Receive answers POST control.ReportPath.
func (b *Board) Receive(w http.ResponseWriter, r *http.Request) {
	select {
	case b.posted <- struct{}{}:
		defer func() { <-b.posted }()
	default:
		refuse(w, http.StatusServiceUnavailable, ErrTooMany)
		return
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		refuse(w, http.StatusBadRequest, ErrBad)
		return
	}
	// No web page can send this type to another server than its own.
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(kind) != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, fmt.Errorf("%w: send application/json", ErrBad))
		return
	}
	var report control.Report
	body := http.MaxBytesReader(w, r.Body, control.MaxReport)
	if err := json.NewDecoder(body).Decode(&report); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("%w: %w", ErrBad, err))
		return
	}
	next, err := b.Accept(report, from.Addr().Unmap().WithZone(""))
	switch {
	case errors.Is(err, ErrUnknown):
		refuse(w, http.StatusNotFound, err)
	case errors.Is(err, ErrTooMany):
		w.Header().Set("Retry-After", "10")
		refuse(w, http.StatusTooManyRequests, err)
	case err != nil:
		refuse(w, http.StatusBadRequest, err)
	default:
		reply(w, http.StatusOK, control.ReportAnswer{Schema: control.Schema, NextMS: next.Milliseconds()})
	}
}

func (b *Board) overview(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, b.look().overview)
}

// detail answers GET /v1/hosts?release=VERSION, and of the parameters q (a part
// of a name, address or rack), state, offset and limit those that are given.
func (b *Board) detail(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s := b.look()
	c := s.releases[q.Get("release")]
	if c == nil {
		refuse(w, http.StatusNotFound, ErrUnknown)
		return
	}
	d := Detail{Schema: Schema, Now: s.overview.Now, Release: c.release, Hosts: []Host{}}
	limit := min(number(q.Get("limit"), MaxHosts/2), MaxHosts)
	d.Offset = number(q.Get("offset"), 0)
	word := strings.ToLower(q.Get("q"))
	for i := range c.hosts {
		if h := &c.hosts[i]; h.fits(word, q.Get("state")) {
			if d.Matched++; d.Matched > d.Offset && len(d.Hosts) < limit {
				d.Hosts = append(d.Hosts, *h)
			}
		}
	}
	reply(w, http.StatusOK, d)
}

func (h *Host) fits(word, state string) bool {
	if state != "" && h.State != state && !(state == "attention" && h.attention()) {
		return false
	}
	return word == "" || strings.Contains(strings.ToLower(h.Name+" "+h.Addr+" "+h.Rack), word)
}

// number reads a parameter that is at least 0.
func number(text string, otherwise int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return otherwise
	}
	return n
}

// asset serves a file of the page, which only a new program changes.
func asset(name, kind string) http.HandlerFunc {
	text, err := assets.ReadFile(name)
	if err != nil {
		panic(err) // it is not in the program
	}
	tag := fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(text))[:16])
	return func(w http.ResponseWriter, r *http.Request) {
		harden(w)
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-cache") // ask whether it is still this one
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(text)
	}
}

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"bytes":   func(n int64) string { return humanize.IBytes(uint64(max(n, 0))) },
	"percent": func(p float64) int { return int(100 * p) },
}).ParseFS(assets, "page.html"))

// pageHosts is how many hosts of a release the page names where no script runs.
const pageHosts = 50

// page is the page with what there is to see at this moment, for those who run
// no script; everybody else's script asks for it, again and again.
func (b *Board) page(w http.ResponseWriter, _ *http.Request) {
	s := b.look()
	type row struct {
		Release
		List []Host
	}
	var rows []row
	for _, r := range s.overview.Releases {
		hosts := s.releases[r.Version].hosts
		rows = append(rows, row{r, hosts[:min(len(hosts), pageHosts)]})
	}
	var text bytes.Buffer
	if err := pageTemplate.Execute(&text, map[string]any{"Overview": s.overview, "Rows": rows}); err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	harden(w)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(text.Bytes())
}

func harden(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

func reply(w http.ResponseWriter, code int, v any) {
	harden(w)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	// An error here is a client that went away: nobody to tell.
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, code int, err error) {
	reply(w, code, struct {
		Schema int    `json:"schema"`
		Error  string `json:"error"`
	}{Schema, err.Error()})
}
