package integration

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// maxFileLines is the house's limit for a file that is no test.
const maxFileLines = 500

// TestSource holds every package to its comments and every file to its length.
func TestSource(t *testing.T) {
	for _, p := range listPackages(t) {
		files := map[string][]byte{}
		for _, name := range p.GoFiles {
			path := filepath.Join(p.Dir, name)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files[relative(p.ImportPath)+"/"+name] = text
		}
		for _, c := range complaints(relative(p.ImportPath), files) {
			t.Error(c)
		}
	}
}

// complaints judges one package.
func complaints(pkg string, files map[string][]byte) (found []string) {
	var packageDoc string
	for name, text := range files {
		if n := bytes.Count(text, []byte("\n")); n > maxFileLines {
			found = append(found, fmt.Sprintf("%s has %d lines, more than %d", name, n, maxFileLines))
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, text, parser.ParseComments)
		if err != nil {
			found = append(found, err.Error())
			continue
		}
		if ast.IsGenerated(f) {
			continue
		}
		packageDoc += f.Doc.Text()
		for _, d := range f.Decls {
			for _, id := range undocumented(d) {
				found = append(found, fmt.Sprintf("%s: exported %s has no comment", fset.Position(id.Pos()), id.Name))
			}
		}
	}
	switch {
	case packageDoc == "":
		found = append(found, pkg+" has no package comment")
	case !strings.Contains(packageDoc, "never"):
		found = append(found, pkg+": the package comment does not say what the package must never do")
	}
	return found
}

// undocumented returns the exported names of a declaration that no comment
// explains. A comment on a group counts for all of it, one at the end of the
// line for its own.
func undocumented(d ast.Decl) (names []*ast.Ident) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || exportedReceiver(d.Recv) && !plain[d.Name.Name]) {
			names = append(names, d.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if d.Doc == nil && s.Doc == nil && s.Comment == nil && s.Name.IsExported() {
					names = append(names, s.Name)
				}
			case *ast.ValueSpec:
				if d.Doc != nil || s.Doc != nil || s.Comment != nil {
					continue
				}
				for _, id := range s.Names {
					if id.IsExported() {
						names = append(names, id)
					}
				}
			}
		}
	}
	return names
}

// plain are methods whose name says it all: what they do is defined elsewhere.
var plain = map[string]bool{"Error": true, "Unwrap": true, "String": true}

func exportedReceiver(recv *ast.FieldList) bool {
	kind := recv.List[0].Type
	for {
		switch k := kind.(type) {
		case *ast.StarExpr:
			kind = k.X
		case *ast.IndexExpr:
			kind = k.X
		case *ast.IndexListExpr:
			kind = k.X
		case *ast.Ident:
			return k.IsExported()
		default:
			return true
		}
	}
}

// TestSourceRules shows that each rule can fail.
func TestSourceRules(t *testing.T) {
	const doc = "// Package p must never fail.\npackage p\n"
	for _, tc := range []struct{ name, text, want string }{
		{"good", doc + "// F is.\nfunc F() {}\n", ""},
		{"no package comment", "package p\n", "no package comment"},
		{"no never", "// Package p is.\npackage p\n", "never do"},
		{"function", doc + "func F() {}\n", "exported F"},
		{"method", doc + "// T is.\ntype T[E any] struct{}\nfunc (t *T[E]) M() {}\n", "exported M"},
		{"method of a hidden type", doc + "type t struct{}\nfunc (t *t) M() {}\n", ""},
		{"method that everybody knows", doc + "// T is.\ntype T int\nfunc (T) String() string { return \"\" }\n", ""},
		{"type", doc + "type T int\n", "exported T"},
		{"constant", doc + "const C = 1\n", "exported C"},
		{"group", doc + "// All of them.\nconst (\n\tA = 1\n\tB = 2\n)\n", ""},
		{"end of line", doc + "var (\n\tA = 1 // a\n)\n", ""},
		{"hidden", doc + "func f() {}\nvar x = 1\n", ""},
		{"length", doc + strings.Repeat("\n", maxFileLines), "has 502 lines"},
		{"syntax", doc + "func {", "expected"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := strings.Join(complaints("p", map[string][]byte{"p.go": []byte(tc.text)}), "\n")
			if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
