package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sample is a release on a host at one moment. Sizes are bytes of payload.
type Sample struct {
	Version, Infohash string
	States            []string // all that there are
	State             string
	Since             time.Time

	Bytes, BytesHave   int64
	Pieces, PiecesHave int

	FromOrigin, FromPeers, FromWeb, FromReuse int64 // received or taken since the start
	Received, Useful, Sent                    int64
	Peers, Seeds, Known                       int

	WaitingPieces, WaitingReads int
	OldestWait                  time.Duration

	HashFailures int64
	Banned       int
	LostTrackers int // trackers that did not answer the last time

	CacheBudget, CacheUsed, CacheHits, CacheMisses int64
	Unwritten                                      int64
	DiskFails                                      bool
}

type of = Part[*Sample]

// nodeFigures are the series of a node that have one value each.
var nodeFigures = Figures[*Sample](slices.Concat(
	releaseFigures,
	Counters("dcfs_received_bytes_total",
		"Payload bytes that were not here before, by where they came from: an origin, other servers, web seeds, or this host's older releases.",
		"source",
		of{"origin", func(s *Sample) float64 { return float64(s.FromOrigin) }},
		of{"peer", func(s *Sample) float64 { return float64(s.FromPeers) }},
		of{"webseed", func(s *Sample) float64 { return float64(s.FromWeb) }},
		of{"reuse", func(s *Sample) float64 { return float64(s.FromReuse) }}),
	exchangeFigures, waitFigures,
	Counters("dcfs_cache_lookups_total", "Lookups of pieces in memory.", "result",
		of{"hit", func(s *Sample) float64 { return float64(s.CacheHits) }},
		of{"miss", func(s *Sample) float64 { return float64(s.CacheMisses) }}),
	cacheFigures,
))

var releaseFigures = []Figure[*Sample]{
	Gauge("dcfs_release_state_timestamp_seconds", "Since when the release is in its state.",
		func(s *Sample) float64 { return float64(s.Since.UnixMilli()) / 1000 }),
	Gauge("dcfs_release_size_bytes", "Size of the release's payload; 0 until its metadata is here.",
		func(s *Sample) float64 { return float64(s.Bytes) }),
	Gauge("dcfs_release_verified_bytes", "Payload that is here and verified.",
		func(s *Sample) float64 { return float64(s.BytesHave) }),
	Gauge("dcfs_release_pieces", "Pieces of the release.", func(s *Sample) float64 { return float64(s.Pieces) }),
	Gauge("dcfs_release_verified_pieces", "Pieces that are here and verified.",
		func(s *Sample) float64 { return float64(s.PiecesHave) }),
}

var exchangeFigures = []Figure[*Sample]{
	Counter("dcfs_wasted_bytes_total", "Payload bytes received that were here already.",
		func(s *Sample) float64 { return float64(max(0, s.Received-s.Useful)) }),
	Counter("dcfs_sent_bytes_total", "Payload bytes sent to peers.", func(s *Sample) float64 { return float64(s.Sent) }),
	Gauge("dcfs_peers", "Peers connected.", func(s *Sample) float64 { return float64(s.Peers) }),
	Gauge("dcfs_seeds", "Peers connected that have everything.", func(s *Sample) float64 { return float64(s.Seeds) }),
	Gauge("dcfs_known_peers", "Peers known, connected or not.", func(s *Sample) float64 { return float64(s.Known) }),
	Gauge("dcfs_failing_trackers", "Trackers that did not answer the last time.",
		func(s *Sample) float64 { return float64(s.LostTrackers) }),
	Counter("dcfs_hash_failures_total", "Pieces that came with a wrong hash and were thrown away.",
		func(s *Sample) float64 { return float64(s.HashFailures) }),
	Gauge("dcfs_banned_peers", "Addresses that are talked to no more because they sent wrong bytes.",
		func(s *Sample) float64 { return float64(s.Banned) }),
}

var waitFigures = []Figure[*Sample]{
	Gauge("dcfs_waiting_pieces", "Pieces that reads are blocked on.", func(s *Sample) float64 { return float64(s.WaitingPieces) }),
	Gauge("dcfs_waiting_reads", "Reads that are blocked.", func(s *Sample) float64 { return float64(s.WaitingReads) }),
	Gauge("dcfs_oldest_wait_seconds", "How long the read waits that waits longest; 0 when none does.",
		func(s *Sample) float64 { return s.OldestWait.Seconds() }),
}

var cacheFigures = []Figure[*Sample]{
	Gauge("dcfs_cache_budget_bytes", "Memory that pieces may take (--cache).", func(s *Sample) float64 { return float64(s.CacheBudget) }),
	Gauge("dcfs_cache_used_bytes", "Memory that pieces take.", func(s *Sample) float64 { return float64(s.CacheUsed) }),
	Gauge("dcfs_unwritten_bytes", "Verified payload that the disk has not taken yet.",
		func(s *Sample) float64 { return float64(s.Unwritten) }),
	Gauge("dcfs_disk_failing", "1 while the disk refuses pieces.", func(s *Sample) float64 { return Yes(s.DiskFails) }),
}

var (
	descRelease = prometheus.NewDesc("dcfs_release_info", "1, with the release that this process serves.",
		[]string{"version", "infohash"}, nil)
	descState = prometheus.NewDesc("dcfs_release_state", "1 for the state that the release is in, 0 for the others.",
		[]string{"state"}, nil)
)

// Node collects the figures of a release on this host. The function must not
// block on the network or on a disk.
func Node(sample func() Sample) prometheus.Collector { return node(sample) }

type node func() Sample

// Describe implements prometheus.Collector.
func (n node) Describe(ch chan<- *prometheus.Desc) {
	ch <- descRelease
	ch <- descState
	nodeFigures.Describe(ch)
}

// Collect implements prometheus.Collector.
func (n node) Collect(ch chan<- prometheus.Metric) {
	s := n()
	ch <- prometheus.MustNewConstMetric(descRelease, prometheus.GaugeValue, 1, s.Version, s.Infohash)
	for _, state := range s.States {
		ch <- prometheus.MustNewConstMetric(descState, prometheus.GaugeValue, Yes(state == s.State), state)
	}
	nodeFigures.Send(ch, &s)
}
