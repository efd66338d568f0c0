package origin

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dcfs/cmd/internal/metrics"
)

var (
	descSent = prometheus.NewDesc("dcfs_origin_sent_bytes_total",
		"Payload bytes sent to peers.", []string{"version"}, nil)
	descPeers = prometheus.NewDesc("dcfs_origin_peers",
		"Peers connected to the origin's seeder.", []string{"version"}, nil)
	descWebSeed = prometheus.NewDesc("dcfs_origin_webseed_sent_bytes_total",
		"Payload bytes sent by the web seed.", []string{"version"}, nil)
	descHosts = prometheus.NewDesc("dcfs_origin_hosts",
		"Hosts of a release that report or announce themselves, by state, as on the status page.", []string{"version", "state"}, nil)
	descSwarm = prometheus.NewDesc("dcfs_tracker_peers",
		"Peers known to the tracker.", []string{"version", "complete"}, nil)
)

// originFigures are the series that have one value each.
var originFigures = append(metrics.Figures[*service]{
	metrics.Gauge("dcfs_origin_releases", "Releases that the origin serves.",
		func(s *service) float64 { return float64(len(s.shelf.all())) }),
	metrics.Gauge("dcfs_origin_failed_releases", "Stored releases that cannot be served; the log says why.",
		func(s *service) float64 { return float64(s.shelf.failures()) }),
	metrics.Counter("dcfs_origin_damaged_pieces_total", "Pieces of stored releases that proved damaged; publish those again.",
		func(s *service) float64 { return float64(s.shelf.damaged.Load()) }),
	metrics.Gauge("dcfs_origin_uptime_seconds", "Time since the origin started.",
		func(s *service) float64 { return time.Since(s.started).Seconds() }),
	metrics.Gauge("dcfs_origin_cache_budget_bytes", "Memory that pieces may take (--cache).",
		func(s *service) float64 { return float64(s.shelf.memory.Budget()) }),
	metrics.Gauge("dcfs_origin_cache_used_bytes", "Memory that pieces take.",
		func(s *service) float64 { return float64(s.shelf.memory.Used()) }),
}, metrics.Counters("dcfs_origin_cache_lookups_total", "Lookups of pieces in memory.", "result",
	metrics.Part[*service]{Label: "hit", Value: func(s *service) float64 { hits, _ := s.shelf.memory.Counts(); return float64(hits) }},
	metrics.Part[*service]{Label: "miss", Value: func(s *service) float64 { _, misses := s.shelf.memory.Counts(); return float64(misses) }},
)...)

// requests counts what is asked over HTTP, by what it is asked of.
type requests struct {
	answered *prometheus.CounterVec
	size     *prometheus.HistogramVec
}

func newRequests() *requests {
	return &requests{
		answered: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dcfs_origin_http_requests_total",
			Help: "HTTP requests answered, by part of the origin and status code."}, []string{"handler", "code"}),
		size: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dcfs_origin_http_response_size_bytes",
			Help:    "Sizes of HTTP answers, by part of the origin; the sum of webseed is what the web seed has sent.",
			Buckets: prometheus.ExponentialBuckets(1<<10, 16, 6)}, []string{"handler"}),
	}
}

// counted is a handler whose answers are counted under a name of its own.
func (r *requests) counted(name string, h http.HandlerFunc) http.Handler {
	label := prometheus.Labels{"handler": name}
	return promhttp.InstrumentHandlerCounter(r.answered.MustCurryWith(label),
		promhttp.InstrumentHandlerResponseSize(r.size.MustCurryWith(label), h))
}

// metrics is the handler of /metrics.
func (s *service) metrics() http.Handler {
	return metrics.Handler(s.version, s.requests.answered, s.requests.size, metrics.Gate(s.gate), collector{s})
}

type collector struct{ s *service }

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSent, descWebSeed, descPeers, descSwarm, descHosts} {
		ch <- d
	}
	originFigures.Describe(ch)
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	originFigures.Send(ch, c.s)
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	swarms := c.s.swarms()
	for _, rel := range c.s.shelf.swarms() { // a swarm of several versions counts once
		st := rel.swarm.Stats()
		ch <- prometheus.MustNewConstMetric(descSent, prometheus.CounterValue, float64(st.Sent), rel.version)
		ch <- prometheus.MustNewConstMetric(descWebSeed, prometheus.CounterValue, float64(rel.webSeed.Load()), rel.version)
		gauge(descPeers, float64(st.Peers), rel.version)
		gauge(descSwarm, float64(swarms[rel.mi.InfoHash].Complete), rel.version, "yes")
		gauge(descSwarm, float64(swarms[rel.mi.InfoHash].Incomplete), rel.version, "no")
	}
	for _, r := range c.s.board.Overview().Releases {
		for state, n := range r.States {
			gauge(descHosts, float64(n), r.Version, state)
		}
	}
}
