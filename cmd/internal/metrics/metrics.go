// Package metrics shows a process's figures to Prometheus: the registry that
// every dcfs process has for itself, and the figures of a release on a host.
//
// It must never use the global registry, which libraries write to, keep a
// figure that somebody else keeps already, or take a label from a peer: what
// strangers name would make series without end.
package metrics

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler serves a registry of its own: the collectors, the process, the Go
// runtime, and which version of dcfs this is.
func Handler(version string, all ...prometheus.Collector) http.Handler {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "dcfs_build_info",
		Help: "1, with the version of dcfs that runs.", ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	reg.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg.MustRegister(all...)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Server is an HTTP server for figures, with its bounds set.
func Server(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
}

// Mux answers /metrics, and /healthz with "ok" or what is wrong (503).
func Mux(figures http.Handler, health func() error) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", figures)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := health(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// Reads counts the reads of a mount by how long they took.
type Reads struct {
	took      *prometheus.HistogramVec
	hit, miss prometheus.Observer
	failed    prometheus.Counter
}

// readBuckets are in seconds: from RAM up to the deadline of a read.
var readBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// NewReads returns counters at zero.
func NewReads() *Reads {
	r := &Reads{
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dcfs_read_duration_seconds", Buckets: readBuckets,
			Help: "How long reads of the mount took that reached dcfs; hit: all of it was here, miss: it was waited for."},
			[]string{"result"}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{Name: "dcfs_read_errors_total",
			Help: "Reads of the mount that failed, most of them at --read-timeout."}),
	}
	r.hit, r.miss = r.took.WithLabelValues("hit"), r.took.WithLabelValues("miss")
	return r
}

// Done counts a read.
func (r *Reads) Done(hit bool, took time.Duration, err error) {
	switch {
	case err != nil:
		r.failed.Inc()
	case hit:
		r.hit.Observe(took.Seconds())
	default:
		r.miss.Observe(took.Seconds())
	}
}

// Describe implements prometheus.Collector.
func (r *Reads) Describe(ch chan<- *prometheus.Desc) { r.took.Describe(ch); r.failed.Describe(ch) }

// Collect implements prometheus.Collector.
func (r *Reads) Collect(ch chan<- prometheus.Metric) { r.took.Collect(ch); r.failed.Collect(ch) }
