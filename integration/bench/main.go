// Bench measures the built binary from outside, beside other programs that do
// the same work, and prints tables and JSON lines.
//
// A benchmark is a file of this package whose init registers it. Rivals run in
// turns within one run (A B A B …), and medians and ratios are printed, so that
// figures mean something on a machine that does other things as well. The
// package must never import what it measures, nor leave anything behind.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"
)

// benchmark is one of the things that can be measured.
type benchmark struct {
	name  string // as -only selects it
	about string
	run   func(*env) error
}

var benchmarks []benchmark

// register is called by the init of a file that holds a benchmark.
func register(name, about string, run func(*env) error) {
	benchmarks = append(benchmarks, benchmark{name, about, run})
}

// env is what a benchmark works with.
type env struct {
	ctx    context.Context
	dcfs   string // path of the binary
	dir    string // empty at the start of each benchmark, removed after it
	full   bool   // sizes as in the goals, however long that takes
	rounds int    // how often rivals run in turns
	byCPU  bool   // what the work took of the processor, instead of the clock
	out    *report
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	binary := flag.String("dcfs", "bin/dcfs", "the binary to measure")
	only := flag.String("only", "", "run the benchmarks whose names match this regular expression")
	full := flag.Bool("full", os.Getenv("BENCH_FULL") != "", "sizes as in the goals (also BENCH_FULL=1)")
	rounds := flag.Int("rounds", 3, "how often rivals run in turns")
	byCPU := flag.Bool("cpu", false, "read: compare processor time instead of the clock, on a machine that does other things as well")
	work := flag.String("dir", "", "work below this directory (default: the system's for temporary files)")
	flag.Parse()
	choice, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(*binary)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w: make build first", err)
	}
	e := &env{ctx: ctx, dcfs: path, full: *full, rounds: max(*rounds, 1), byCPU: *byCPU, out: newReport(os.Stdout)}
	if *work == "" {
		*work = os.TempDir()
	}
	e.out.machine(*work)
	slices.SortFunc(benchmarks, func(a, b benchmark) int { return cmp.Compare(a.name, b.name) })
	for _, b := range benchmarks {
		if !choice.MatchString(b.name) {
			continue
		}
		if err := e.one(b, *work); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return nil
}

// one runs a benchmark in a directory of its own.
func (e *env) one(b benchmark, work string) (err error) {
	if e.dir, err = os.MkdirTemp(work, "dcfs-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(e.dir)
	e.out.begin(b)
	start := time.Now()
	if err := b.run(e); err != nil {
		return err
	}
	e.out.note("took %s", time.Since(start).Round(time.Second))
	return nil
}

// path names something in the benchmark's directory.
func (e *env) path(elem ...string) string { return filepath.Join(append([]string{e.dir}, elem...)...) }
