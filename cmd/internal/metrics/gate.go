package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"dcfs/swarm/gate"
)

// gateFigures are the series about who may connect.
var gateFigures = Figures[*gate.Gate](Counters("dcfs_refused_connections_total",
	"Connections refused: from outside of the networks of --peer-allow, or without a certificate of the fleet.", "reason",
	Part[*gate.Gate]{"network", func(g *gate.Gate) float64 { outside, _ := g.Refused(); return float64(outside) }},
	Part[*gate.Gate]{"certificate", func(g *gate.Gate) float64 { _, unproven := g.Refused(); return float64(unproven) }}))

var descExpiry = prometheus.NewDesc("dcfs_tls_certificate_expiry_timestamp_seconds",
	"When this host's certificate of --peer-tls expires.", nil, nil)

// Gate collects the figures about who may connect; nil is a gate that lets
// everybody in.
func Gate(g *gate.Gate) prometheus.Collector { return gateCollector{g} }

type gateCollector struct{ *gate.Gate }

// Describe implements prometheus.Collector.
func (g gateCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descExpiry
	gateFigures.Describe(ch)
}

// Collect implements prometheus.Collector.
func (g gateCollector) Collect(ch chan<- prometheus.Metric) {
	if g.Gate != nil && g.Identity != nil {
		_, to := g.Identity.Validity()
		ch <- prometheus.MustNewConstMetric(descExpiry, prometheus.GaugeValue, float64(to.Unix()))
	}
	gateFigures.Send(ch, g.Gate)
}
