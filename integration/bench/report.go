package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// report prints for people, and each figure once more as a line of JSON.
type report struct {
	w     io.Writer
	bench string
}

func newReport(w io.Writer) *report { return &report{w: w} }

// machine says on what was measured; dir is where the work is done.
func (r *report) machine(dir string) {
	var u unix.Utsname
	_ = unix.Uname(&u)
	load, _ := os.ReadFile("/proc/loadavg")
	m := map[string]any{
		"date": time.Now().UTC().Format(time.RFC3339), "cores": runtime.NumCPU(), "cpu": procField("/proc/cpuinfo", "model name"),
		"memory_kib": procKiB("/proc/meminfo", "MemTotal"), "kernel": string(bytes.TrimRight(u.Release[:], "\x00")),
		"go": runtime.Version(), "filesystem": filesystem(dir), "load": strings.Join(strings.Fields(string(load))[:3], " "),
	}
	fmt.Fprintf(r.w, "%s · %d cores, %s · %d MiB RAM · Linux %s · %s · %s · load %s\n",
		m["date"], m["cores"], m["cpu"], m["memory_kib"].(int64)>>10, m["kernel"], m["go"], m["filesystem"], m["load"])
	r.line(map[string]any{"machine": m})
}

func filesystem(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return "unknown"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	}
	if name := names[int64(st.Type)]; name != "" {
		return name
	}
	return fmt.Sprintf("filesystem %#x", st.Type)
}

func (r *report) begin(b benchmark) {
	r.bench = b.name
	fmt.Fprintf(r.w, "\n== %s: %s\n", b.name, b.about)
}

// note prints a remark.
func (r *report) note(format string, args ...any) { fmt.Fprintf(r.w, format+"\n", args...) }

func (r *report) line(v any) {
	enc := json.NewEncoder(r.w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // of maps of plain values
	}
}

// figure is one measured value. Ratio, if there is one, is to what Beside
// names, Goal what was aimed at.
type figure struct {
	Case   string  `json:"case"`
	What   string  `json:"what"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Ratio  float64 `json:"ratio,omitempty"`
	Beside string  `json:"beside,omitempty"`
	Goal   string  `json:"goal,omitempty"`
}

// figures prints a table of figures, and then the same as lines.
func (r *report) figures(all []figure) {
	t := tabwriter.NewWriter(r.w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "case\twhat\tmedian\tunit\tratio\tbeside\tgoal")
	for _, f := range all {
		ratio := ""
		if f.Ratio != 0 {
			ratio = fmt.Sprintf("%.2f", f.Ratio)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Case, f.What, short(f.Value), f.Unit, ratio, f.Beside, f.Goal)
	}
	t.Flush()
	for _, f := range all {
		r.line(struct {
			Bench string `json:"bench"`
			figure
		}{r.bench, f})
	}
}

func short(v float64) string {
	switch {
	case v >= 100 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// median returns the middle of values, of which there is at least one.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// rival is one of several ways to do the same work; run returns seconds.
type rival struct {
	name string
	run  func() (float64, error)
}

// turns runs rivals one after the other, round by round, and returns the
// medians by name. ratio gives the median of a rival's ratios to another's
// within the rounds, which a change of the machine's load spares most.
func (e *env) turns(rivals []rival) (medians map[string]float64, ratio func(a, b string) float64, err error) {
	all := make(map[string][]float64)
	for range e.rounds {
		for _, r := range rivals {
			if err := e.ctx.Err(); err != nil {
				return nil, nil, err
			}
			v, err := r.run()
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", r.name, err)
			}
			all[r.name] = append(all[r.name], v)
		}
	}
	medians = make(map[string]float64)
	for name, v := range all {
		medians[name] = median(v)
	}
	ratio = func(a, b string) float64 {
		var out []float64
		for i := range all[a] {
			out = append(out, all[a][i]/all[b][i])
		}
		return median(out)
	}
	return medians, ratio, nil
}
