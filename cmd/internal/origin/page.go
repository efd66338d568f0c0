package origin

import (
	_ "embed"
	"html/template"
	"net/http"
	"sort"
	"time"

	"github.com/dustin/go-humanize"

	"dcfs/swarm/tracker"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"bytes": func(n int64) string { return humanize.IBytes(uint64(max(n, 0))) },
	"ago":   func(t time.Time) string { return time.Since(t).Round(time.Second).String() },
}).Parse(pageText))

type pageRelease struct {
	Version, Infohash string
	Bytes, Sent       int64
	Hosts             []pageHost
}

type pageHost struct {
	Addr    string
	Percent int64
	Seen    time.Time
}

func (s *service) swarms() map[[20]byte]tracker.Swarm {
	out := make(map[[20]byte]tracker.Swarm)
	for _, sw := range s.tracker.Snapshot() {
		out[sw.Infohash] = sw
	}
	return out
}

// page shows the releases and the hosts that the tracker knows.
func (s *service) page(w http.ResponseWriter, _ *http.Request) {
	swarms := s.swarms()
	var rows []pageRelease
	for _, rel := range s.shelf.all() {
		row := pageRelease{
			Version: rel.version, Infohash: hexHash(rel.mi.InfoHash),
			Bytes: rel.mi.Tree.Bytes(), Sent: rel.swarm.Stats().Sent,
		}
		total := rel.mi.Layout.Total
		for _, p := range swarms[rel.mi.InfoHash].Peers {
			row.Hosts = append(row.Hosts, pageHost{p.Addr.String(), 100 * (total - min(max(p.Left, 0), total)) / total, p.LastSeen})
		}
		rows = append(rows, row)
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].Version < rows[j].Version })
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	if err := pageTemplate.Execute(w, map[string]any{"Up": s.started, "Releases": rows}); err != nil {
		s.log.Debug("writing the page", "cause", err)
	}
}
