package fleet

import (
	"slices"
	"time"

	"dcfs/cmd/internal/control"
)

// State is how far a host has come.
type State string

const (
	// Pending: nobody has spoken to it yet. Next: Fetching, Ready, Failed.
	Pending State = "pending"
	// Fetching: it makes its copy. Next: Ready, Failed.
	Fetching State = "fetching"
	// Ready: the whole, verified copy stands. Next: Swapping.
	Ready State = "ready"
	// Swapping: it was told to swap its link, and has not answered that it did.
	// Next: Swapped, Back, Unknown.
	Swapping State = "swapping"
	// Swapped: its link leads to the copy. Next: Done, Unhealthy, Back, Unknown.
	Swapped State = "swapped"
	// Done: it is healthy, or nobody asked. Next: Back, Unknown.
	Done State = "done"
	// Unhealthy: its health check failed. Next: Back, Unknown.
	Unhealthy State = "unhealthy"
	// Failed: it did not get ready, and its link was not touched. Last.
	Failed State = "failed"
	// Back: its link leads where it did before. Last.
	Back State = "back"
	// Unknown: it was told to swap or to go back, and did not say that it did.
	// Next: Back; else last.
	Unknown State = "unknown"
)

// States are all of them, in the order of a deployment.
var States = []State{Pending, Fetching, Ready, Swapping, Swapped, Done, Unhealthy, Failed, Back, Unknown}

// Host is what is known of one host.
type Host struct {
	Name   string        `json:"host"`
	State  State         `json:"state"`
	Target string        `json:"target"` // where its link leads
	Error  string        `json:"error,omitempty"`
	At     time.Duration `json:"-"` // since the start, of its last change
	Ready  float64       `json:"ready_seconds,omitempty"`
	Swap   float64       `json:"swapped_seconds,omitempty"`

	fetched bool           // it had to
	held    []control.Held // what its copy waited for
	now     string         // what it waited for when it was given up
}

func all(Host) bool     { return true }
func ready(h Host) bool { return h.State == Ready }

func inState(s State) func(Host) bool { return func(h Host) bool { return h.State == s } }

func touched(h Host) bool {
	return slices.Contains([]State{Swapping, Swapped, Done, Unhealthy, Unknown}, h.State)
}

// Times are seconds since the start of a deployment.
type Times struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Report is a deployment at one moment, and at its end.
type Report struct {
	Outcome  string  `json:"outcome"` // "deployed", "failed"; "running" before the end
	Version  string  `json:"version"`
	Infohash string  `json:"infohash"`
	Epoch    int64   `json:"epoch"`
	Quorum   int     `json:"quorum"`
	Hosts    []Host  `json:"hosts"`
	Ready    Times   `json:"ready"`
	Swapped  Times   `json:"swapped"`
	Back     float64 `json:"back_seconds,omitempty"` // how long it took to take the swaps back
	Counts   Counts  `json:"counts"`

	Bound  Bound    `json:"bound"`         // on the time until the last host is ready
	Copies *float64 `json:"origin_copies"` // how often the origin sent the release meanwhile; null: not known
	Slow   []Slow   `json:"slow"`
}

// Counts are numbers of hosts, by state.
type Counts map[State]int

func (d *deployment) report(err error) Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.reportLocked()
	r.Back = d.back
	r.Bound = boundOf(d.cfg.Bytes, d.fetchers(), d.cfg.Rates)
	r.Slow = append([]Slow{}, slow(r.Hosts, r.Ready.P50)...)
	r.Outcome = "deployed"
	if err != nil {
		r.Outcome = "failed"
	}
	return r
}

// fetchers counts the hosts that had to fetch. d.mu is held.
func (d *deployment) fetchers() (n int) {
	for i := range d.hosts {
		if d.hosts[i].fetched {
			n++
		}
	}
	return n
}

func (d *deployment) reportLocked() Report {
	r := Report{
		Outcome: "running", Version: d.cfg.Version, Infohash: d.cfg.InfoHash, Epoch: d.epoch,
		Quorum: d.cfg.Quorum, Hosts: slices.Clone(d.hosts), Counts: Counts{},
	}
	var readies, swaps []float64
	for _, h := range r.Hosts {
		r.Counts[h.State]++
		if h.Ready > 0 {
			readies = append(readies, h.Ready)
		}
		if h.Swap > 0 {
			swaps = append(swaps, h.Swap)
		}
	}
	r.Ready, r.Swapped = times(readies), times(swaps)
	return r
}

// times are quantiles by the nearest rank.
func times(s []float64) Times {
	if len(s) == 0 {
		return Times{}
	}
	slices.Sort(s)
	at := func(percent int) float64 { return s[(len(s)*percent+99)/100-1] }
	return Times{at(50), at(99), s[len(s)-1]}
}
