package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
)

// run is what make bench-swarm prints of a run, as JSON.
type run struct {
	Tool  string  `json:"tool"`
	Hosts int     `json:"hosts"`
	Racks int     `json:"racks"`
	Mbit  float64 `json:"mbit"`
	Bytes int64   `json:"bytes"`
	Last  float64 `json:"last_s"`
	Copy  float64 `json:"origin_copies_link"`
}

// runs reads those of dcfs out of a benchmark's output, whose other lines it
// passes over.
func runs(r io.Reader) (all []run, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one run
		if json.Unmarshal(lines.Bytes(), &one) == nil && (one.Tool == "dcfs" || one.Tool == "dcfs-flat") && one.Hosts > 0 && one.Last > 0 {
			all = append(all, one)
		}
	}
	return all, lines.Err()
}

// again simulates a run of the lab.
func (r run) again(with setup) (outcome, error) {
	with.hosts, with.racks, with.mbit, with.bytes, with.flat = r.Hosts, r.Racks, r.Mbit, r.Bytes, r.Tool == "dcfs-flat"
	return simulate(with)
}

func compare(w io.Writer, path string, with setup) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	all, err := runs(f)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "tool\tcase\tlab, last s\tsimulated, last s\tdifference\torigin ÷ F, lab\tsimulated")
	for _, r := range all {
		o, err := r.again(with)
		if err != nil {
			return err
		}
		fmt.Fprintf(t, "%s\t%s\t%.2f\t%.2f\t%+.1f %%\t%.2f\t%.2f\n", r.Tool, o, r.Last, o.last, 100*(o.last/r.Last-1), r.Copy, o.copies)
	}
	return t.Flush()
}
