package metrics

import "github.com/prometheus/client_golang/prometheus"

// Figure is one series, and how it is read from a sample of type S.
type Figure[S any] struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	label []string // the value of the variable label, if there is one
	value func(S) float64
}

// Gauge is a figure that goes up and down.
func Gauge[S any](name, help string, value func(S) float64) Figure[S] {
	return Figure[S]{desc: prometheus.NewDesc(name, help, nil, nil), kind: prometheus.GaugeValue, value: value}
}

// Counter is a figure that only rises.
func Counter[S any](name, help string, value func(S) float64) Figure[S] {
	return Figure[S]{desc: prometheus.NewDesc(name, help, nil, nil), kind: prometheus.CounterValue, value: value}
}

// Part is one value of a labelled counter.
type Part[S any] struct {
	Label string
	Value func(S) float64
}

// Counters are the figures of one counter that is split by a label.
func Counters[S any](name, help, label string, parts ...Part[S]) (out []Figure[S]) {
	desc := prometheus.NewDesc(name, help, []string{label}, nil)
	for _, p := range parts {
		out = append(out, Figure[S]{desc: desc, kind: prometheus.CounterValue, label: []string{p.Label}, value: p.Value})
	}
	return out
}

// Figures is a list of figures as a part of a collector.
type Figures[S any] []Figure[S]

// Describe sends each description once.
func (f Figures[S]) Describe(ch chan<- *prometheus.Desc) {
	seen := make(map[*prometheus.Desc]bool)
	for _, x := range f {
		if !seen[x.desc] {
			seen[x.desc] = true
			ch <- x.desc
		}
	}
}

// Send sends the values of a sample.
func (f Figures[S]) Send(ch chan<- prometheus.Metric, s S) {
	for _, x := range f {
		ch <- prometheus.MustNewConstMetric(x.desc, x.kind, x.value(s), x.label...)
	}
}

// Yes is how a truth is a figure.
func Yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
