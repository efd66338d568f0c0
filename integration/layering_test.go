package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLayering holds the source to the floors and the libraries of
// docs/architecture.md.
func TestLayering(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(moduleRoot, "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := parseArchitecture(string(text))
	if err != nil {
		t.Fatalf("docs/architecture.md: %v", err)
	}
	for _, v := range a.violations(listPackages(t)) {
		t.Error(v)
	}
}

const sampleArchitecture = `
| other | table |
|---|---|
| 9 | x |

| floor | package | one line | exports |
|:-----:|---|---|---|
| 1 | ` + "`low`, `low/er`" + ` | | |
| 2 | ` + "`mid, side`" + ` | | |
| 3 | ` + "`top`" + ` | | |

| Library | only in | reason |
|---|---|---|
| ` + "`example.org/lib`" + ` | ` + "`mid`" + ` | one place |
| ` + "`example.org/lib/part`" + ` | ` + "`low`, `mid`" + ` | a codec |
| ` + "`golang.org/x/sys`" + ` | anywhere | system calls |
`

// TestLayeringRules shows that each rule can fail.
func TestLayeringRules(t *testing.T) {
	a, err := parseArchitecture(sampleArchitecture)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, pkg, imports string
		want               string // empty: allowed
	}{
		{"below", "dcfs/top", "dcfs/mid", ""},
		{"far below", "dcfs/top", "dcfs/low/er", ""},
		{"sideways", "dcfs/mid", "dcfs/side", "only floors below"},
		{"above", "dcfs/low", "dcfs/top", "only floors below"},
		{"standard library", "dcfs/low", "net/http", ""},
		{"its place", "dcfs/mid", "example.org/lib/deep", ""},
		{"not its place", "dcfs/top", "example.org/lib", "only for mid: one place"},
		{"longest row wins", "dcfs/low", "example.org/lib/part", ""},
		{"not a part of the name", "dcfs/mid", "example.org/library", "not in the library table"},
		{"anywhere", "dcfs/low", "golang.org/x/sys/unix", ""},
		{"unknown library", "dcfs/low", "example.com/x", "not in the library table"},
		{"unknown package", "dcfs/new", "fmt", "new is not in the floor table"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := a.violations([]goPackage{{ImportPath: tc.pkg, Imports: []string{tc.imports}}})
			var all []string
			for _, v := range got {
				if !strings.Contains(v, "no such package") {
					all = append(all, v)
				}
			}
			if text := strings.Join(all, "\n"); (tc.want == "") != (text == "") || !strings.Contains(text, tc.want) {
				t.Errorf("got %q, want %q", text, tc.want)
			}
		})
	}
	if got := a.violations(nil); len(got) != 5 {
		t.Errorf("stale rows: %q", got)
	}
	for _, bad := range []string{
		"",
		"| floor | package | x |\n|---|---|---|\n| one | `a` | |\n",
		"| floor | package | x |\n|---|---|---|\n| 1 | a | |\n",
		"| floor | package | x |\n|---|---|---|\n| 1 | `a`, `a` | |\n",
		"| library | only in | reason |\n|---|---|---|\n| `a.b/c` | somewhere | why |\n",
		"| library | only in | reason |\n|---|---|---|\n| `a.b/c` | `d` | |\n",
	} {
		if _, err := parseArchitecture(bad); err == nil {
			t.Errorf("accepted: %q", bad)
		}
	}
}
