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
	"strconv"
	"strings"
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
	dcfs   string         // path of the binary
	dir    string         // empty at the start of each benchmark, removed after it
	full   bool           // sizes as in the goals, however long that takes
	rounds int            // how often rivals run in turns
	byCPU  bool           // what the work took of the processor, instead of the clock
	links  []int          // Mbit/s of shaped links
	flags  []string       // given to dcfs origin and mount on shaped links as well
	cases  *regexp.Regexp // of the benchmarks that have them
	alone  bool           // without programs other than dcfs
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
	links := flag.String("links", "100,1000", "cold: the rates of the links, in Mbit/s")
	more := flag.String("flags", "", "cold: more flags for dcfs origin and dcfs mount, such as --trade")
	cases := flag.String("cases", "", "cold: measure the cases whose names match this regular expression")
	alone := flag.Bool("alone", false, "cold: without programs other than dcfs")
	work := flag.String("dir", "", "work below this directory (default: the system's for temporary files)")
	flag.Parse()
	choice, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	which, err := regexp.Compile(*cases)
	if err != nil {
		return err
	}
	rates, err := numbers(*links)
	if err != nil {
		return fmt.Errorf("-links: %w", err)
	}
	path, err := filepath.Abs(*binary)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w: make build first", err)
	}
	e := &env{ctx: ctx, dcfs: path, full: *full, rounds: max(*rounds, 1), byCPU: *byCPU,
		links: rates, cases: which, alone: *alone, flags: strings.Fields(*more), out: newReport(os.Stdout)}
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

// numbers reads a list with commas.
func numbers(list string) (out []int, err error) {
	for _, word := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("%q is no positive number", word)
		}
		out = append(out, n)
	}
	return out, nil
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
