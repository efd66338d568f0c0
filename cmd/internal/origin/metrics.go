package origin

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

var (
	descSent = prometheus.NewDesc("dcfs_origin_sent_bytes_total",
		"Payload bytes sent to peers.", []string{"version"}, nil)
	descPeers = prometheus.NewDesc("dcfs_origin_peers",
		"Peers connected to the origin's seeder.", []string{"version"}, nil)
	descSwarm = prometheus.NewDesc("dcfs_tracker_peers",
		"Peers known to the tracker.", []string{"version", "complete"}, nil)
	descReleases = prometheus.NewDesc("dcfs_origin_releases",
		"Releases that the origin serves.", nil, nil)
	descUptime = prometheus.NewDesc("dcfs_origin_uptime_seconds",
		"Time since the origin started.", nil, nil)
)

// metrics is the handler of /metrics, with a registry of its own.
func (s *service) metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{s})
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

type collector struct{ s *service }

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSent, descPeers, descSwarm, descReleases, descUptime} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	all := c.s.shelf.all()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(descReleases, float64(len(all)))
	gauge(descUptime, time.Since(c.s.started).Seconds())
	swarms := c.s.swarms()
	for _, rel := range all {
		st := rel.swarm.Stats()
		ch <- prometheus.MustNewConstMetric(descSent, prometheus.CounterValue, float64(st.Sent), rel.version)
		gauge(descPeers, float64(st.Peers), rel.version)
		gauge(descSwarm, float64(swarms[rel.mi.InfoHash].Complete), rel.version, "yes")
		gauge(descSwarm, float64(swarms[rel.mi.InfoHash].Incomplete), rel.version, "no")
	}
}
