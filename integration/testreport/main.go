// Command testreport turns the output of `go test -json` into a short report:
// one line for each package, everything that failing tests printed, and, at the
// end, each test that was skipped with its reason. `go test` itself is silent
// about skipped tests, and a run that skipped the main job should not look like
// one that passed it.
//
// It must never turn a failure into a success: it exits 1 when anything failed
// and when the stream ends in the middle of a package.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is what test2json writes for one line of output or change of state.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Output     string
	Elapsed    float64
}

// slow is from how many seconds a passed test is worth a line.
const slow = 5

func main() {
	r := report{w: os.Stdout, output: map[string][]string{}, open: map[string]bool{}}
	if !r.read(os.Stdin) {
		os.Exit(1)
	}
}

type report struct {
	w       io.Writer
	output  map[string][]string // by package and test, until it ends
	open    map[string]bool     // packages that have not ended
	skipped []string
	failed  bool
}

// read reports the whole stream and says whether all of it is well.
func (r *report) read(in io.Reader) bool {
	s := bufio.NewScanner(in)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var e event
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			fmt.Fprintln(r.w, s.Text()) // not ours: go's own complaint
			r.failed = true
			continue
		}
		r.event(e)
	}
	if err := s.Err(); err != nil {
		fmt.Fprintln(r.w, "testreport:", err)
		r.failed = true
	}
	for pkg := range r.open {
		fmt.Fprintf(r.w, "FAIL %s: the test run ended in the middle\n", pkg)
		r.failed = true
	}
	if len(r.skipped) > 0 {
		fmt.Fprintf(r.w, "\nskipped: %d\n%s\n", len(r.skipped), strings.Join(r.skipped, "\n"))
	}
	return !r.failed
}

func (r *report) event(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "start":
		r.open[e.Package] = true
	case "output":
		r.output[key] = append(r.output[key], e.Output)
		return
	case "build-output":
		fmt.Fprint(r.w, e.Output)
	case "build-fail":
		r.failed = true
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.packageEnd(e)
		} else {
			r.testEnd(e)
		}
		delete(r.output, key)
	}
}

func (r *report) packageEnd(e event) {
	delete(r.open, e.Package)
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.w, "ok   %s %.1fs\n", e.Package, e.Elapsed)
	case "fail":
		r.failed = true
		fmt.Fprintf(r.w, "%sFAIL %s %.1fs\n", strings.Join(r.output[e.Package+" "], ""), e.Package, e.Elapsed)
		// Tests that never ended: a panic or a deadline.
		for key, lines := range r.output {
			if pkg, test, _ := strings.Cut(key, " "); pkg == e.Package && test != "" {
				fmt.Fprintf(r.w, "unfinished %s:\n%s", test, strings.Join(lines, ""))
				delete(r.output, key)
			}
		}
	}
}

func (r *report) testEnd(e event) {
	lines := r.output[e.Package+" "+e.Test]
	switch e.Action {
	case "fail":
		r.failed = true
		fmt.Fprint(r.w, strings.Join(lines, ""))
	case "skip":
		r.skipped = append(r.skipped, fmt.Sprintf("  %s %s: %s", e.Package, e.Test, reason(lines)))
	case "pass":
		if e.Elapsed >= slow && !strings.Contains(e.Test, "/") {
			fmt.Fprintf(r.w, "     %s %.1fs\n", e.Test, e.Elapsed)
		}
	}
}

// reason is what a skipped test said, without go's own lines.
func reason(lines []string) string {
	var said []string
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			said = append(said, line)
		}
	}
	return strings.Join(said, "; ")
}
