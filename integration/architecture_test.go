package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the module's path; its root is the parent of this directory.
const (
	module     = "dcfs"
	moduleRoot = ".."
)

// goPackage is what `go list -json` says of a package of the module.
type goPackage struct {
	Dir, ImportPath string
	GoFiles         []string
	Imports         []string
}

// listPackages lists all packages of the module.
func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=Dir,ImportPath,GoFiles,Imports", "./...")
	cmd.Dir = moduleRoot
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("go list: %v: %s", err, exit.Stderr)
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			all = append(all, p)
		}
	}
}

// architecture is what docs/architecture.md decides.
type architecture struct {
	floors    map[string]int         // package, relative to the module → floor
	libraries map[string]libraryRule // import path, with all below it
}

type libraryRule struct {
	only   []string // packages, relative to the module; none: anywhere
	reason string
}

var backticked = regexp.MustCompile("`([^`]+)`")

// parseArchitecture reads two Markdown tables, which it knows by their heads:
//
//	| floor | package | one line | exports |
//	| library | only in | reason |
//
// Floor is a number. Package, library and "only in" are paths in backticks,
// separated by commas; "anywhere" in the last lifts the ban.
func parseArchitecture(text string) (architecture, error) {
	a := architecture{floors: map[string]int{}, libraries: map[string]libraryRule{}}
	var row func(cells []string) error
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			row = nil
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		head := strings.ToLower(strings.Join(cells, "|"))
		switch {
		case strings.HasPrefix(head, "floor|package|"):
			row = a.floorRow
		case head == "library|only in|reason":
			row = a.libraryRow
		case row == nil || strings.Trim(head, "|-: ") == "":
		default:
			if err := row(cells); err != nil {
				return a, fmt.Errorf("line %d: %w", n+1, err)
			}
		}
	}
	if len(a.floors) == 0 || len(a.libraries) == 0 {
		return a, errors.New("no floor table or no library table")
	}
	return a, nil
}

func (a architecture) floorRow(cells []string) error {
	floor, err := strconv.Atoi(cells[0])
	if err != nil {
		return fmt.Errorf("floor %q is not a number", cells[0])
	}
	names := paths(cells[1])
	if len(names) == 0 {
		return fmt.Errorf("floor %d: no package in backticks in %q", floor, cells[1])
	}
	for _, name := range names {
		if _, twice := a.floors[name]; twice {
			return fmt.Errorf("package %s stands twice", name)
		}
		a.floors[name] = floor
	}
	return nil
}

func (a architecture) libraryRow(cells []string) error {
	if len(cells) != 3 || len(paths(cells[0])) == 0 || cells[2] == "" {
		return fmt.Errorf("want | `library` | only in | reason |, got %q", cells)
	}
	only := paths(cells[1])
	if len(only) == 0 && cells[1] != "anywhere" {
		return fmt.Errorf("%s: \"only in\" holds neither a package in backticks nor \"anywhere\"", cells[0])
	}
	for _, lib := range paths(cells[0]) {
		a.libraries[lib] = libraryRule{only, cells[2]}
	}
	return nil
}

func paths(cell string) (names []string) {
	for _, m := range backticked.FindAllStringSubmatch(cell, -1) {
		for name := range strings.SplitSeq(m[1], ",") {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

// violations compares the packages with the architecture. Imports of tests are
// free: they may come from above.
func (a architecture) violations(packages []goPackage) (found []string) {
	seen := map[string]bool{}
	for _, p := range packages {
		name := relative(p.ImportPath)
		seen[name] = true
		floor, ok := a.floors[name]
		if !ok {
			found = append(found, fmt.Sprintf("%s is not in the floor table", name))
			continue
		}
		for _, imp := range p.Imports {
			if why := a.banned(name, floor, imp); why != "" {
				found = append(found, why)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.floors)) {
		if !seen[name] {
			found = append(found, fmt.Sprintf("%s is in the floor table, but there is no such package", name))
		}
	}
	return found
}

// banned says why the package may not have the import; empty when it may.
func (a architecture) banned(name string, floor int, imp string) string {
	first, _, _ := strings.Cut(imp, "/")
	switch {
	case first == module:
		if below, ok := a.floors[relative(imp)]; ok && below >= floor {
			return fmt.Sprintf("%s (floor %d) imports %s (floor %d): only floors below its own are allowed",
				name, floor, relative(imp), below)
		}
	case strings.Contains(first, "."):
		rule, ok := a.rule(imp)
		if !ok {
			return fmt.Sprintf("%s imports %s, which is not in the library table", name, imp)
		}
		if len(rule.only) > 0 && !slices.Contains(rule.only, name) {
			return fmt.Sprintf("%s imports %s, which is only for %s: %s",
				name, imp, strings.Join(rule.only, ", "), rule.reason)
		}
	}
	return ""
}

// rule finds the row with the longest path that holds the import.
func (a architecture) rule(imp string) (libraryRule, bool) {
	for path := imp; path != ""; {
		if rule, ok := a.libraries[path]; ok {
			return rule, true
		}
		i := strings.LastIndexByte(path, '/')
		path = path[:max(i, 0)]
	}
	return libraryRule{}, false
}

func relative(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}
