package tree

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func file(p string, size int64) Node { return Node{Path: p, Kind: File, Mode: 0o644, Size: size} }
func dir(p string) Node              { return Node{Path: p, Kind: Dir, Mode: 0o755} }

func mustBuild(t *testing.T, plan Plan, nodes ...Node) *Tree {
	t.Helper()
	tr, err := Build(nodes, plan)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestBuildIsIndependentOfOrder(t *testing.T) {
	nodes := []Node{
		dir("a"), file("a/2", 3), file("a/1", 5), dir("a/d"), file("a/d/x", 7), file("b", 11),
		{Path: "l", Kind: Symlink, Target: "a/1"},
		{Path: "a/d/again", Kind: File, Link: "b"},
	}
	one := mustBuild(t, Plan{}, nodes...)
	slices.Reverse(nodes)
	two := mustBuild(t, Plan{}, nodes...)
	for id := range ID(one.Len()) {
		if a, b := one.Entry(id), two.Entry(id); a.Name != b.Name || a.Offset != b.Offset || a.Inode != b.Inode || a.Links != b.Links {
			t.Errorf("entry %d: %+v and %+v", id, a, b)
		}
	}
	if one.Total() != 26 || one.Bytes() != 26 || one.Files() != 5 {
		t.Errorf("total %d, bytes %d, files %d", one.Total(), one.Bytes(), one.Files())
	}
	b, _ := one.Find("b")
	again, ok := one.Find("a/d/again")
	if !ok || one.Inode(again) != b || one.Entry(again).Links != 2 || one.Entry(again).Size != 11 {
		t.Errorf("hardlink: %+v", one.Entry(again))
	}
	if root := one.Entry(Root); root.Links != 3 || root.Name != "" || one.Path(Root) != "." {
		t.Errorf("root: %+v", root)
	}
	if got := one.Path(again); got != "a/d/again" {
		t.Errorf("path %q", got)
	}
}

func TestLookup(t *testing.T) {
	tr := mustBuild(t, Plan{}, dir("d"), file("d/a", 1), file("d/c", 1), file("e", 1))
	for _, c := range []struct {
		path string
		ok   bool
	}{{"d/a", true}, {"d/c", true}, {"d/b", false}, {"d/d", false}, {"d/", true}, {"", true}, {"e/x", false}, {"/d/./a", true}} {
		id, ok := tr.Find(c.path)
		if ok != c.ok || ok && strings.Trim(strings.ReplaceAll(c.path, "/./", "/"), "/") != strings.TrimPrefix(tr.Path(id), ".") {
			t.Errorf("Find(%q) = %v, %v", c.path, id, ok)
		}
	}
}

// Extents have to cover every range of the stream exactly, in order.
func TestExtentsCoverTheStream(t *testing.T) {
	const piece = MinPieceLength
	tr := mustBuild(t, Plan{PieceLength: piece, Hot: []string{"z/hot", "nowhere"}},
		file("small", 10), file("big", 5*piece+3), file("empty", 0), dir("z"), file("z/hot", 4), file("z/last", 9))
	if hot, _ := tr.Find("z/hot"); tr.Entry(hot).Offset != 0 {
		t.Error("the hot file does not come first")
	}
	if big, _ := tr.Find("big"); tr.Entry(big).Offset%piece != 0 {
		t.Error("the big file is not aligned")
	}
	for off := int64(0); off < tr.Total(); off += 1111 {
		for _, n := range []int64{1, 100, piece, tr.Total()} {
			at := off
			for x := range tr.Extents(off, n) {
				if x.Start != at || x.Length <= 0 {
					t.Fatalf("Extents(%d, %d): %+v at %d", off, n, x, at)
				}
				if x.File != None {
					if e := tr.Entry(x.File); e.Offset+x.Offset != x.Start || x.Offset+x.Length > e.Size {
						t.Fatalf("%+v is not inside %+v", x, e)
					}
				}
				at += x.Length
			}
			if at != min(off+n, tr.Total()) {
				t.Fatalf("Extents(%d, %d) ended at %d", off, n, at)
			}
		}
	}
}

func TestEmptyReleaseHasOneByte(t *testing.T) {
	tr := mustBuild(t, Plan{}, dir("only"), file("empty", 0))
	if tr.Total() != 1 || tr.Bytes() != 0 {
		t.Errorf("total %d, bytes %d", tr.Total(), tr.Bytes())
	}
	for x := range tr.Extents(0, 10) {
		if x.File != None || x.Length != 1 {
			t.Errorf("%+v", x)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, nodes := range map[string][]Node{
		"twice":      {file("a", 1), file("a", 1)},
		"root twice": {dir("."), dir(".")},
		"too much in all": func() (out []Node) {
			for i := range 40 {
				x := []Xattr{{"user.a", make([]byte, 60<<10)}, {"user.b", make([]byte, 60<<10)}}
				for j := range 30 {
					out = append(out, Node{Path: strings.Repeat("n", i+1) + strings.Repeat("m", j+1), Kind: Dir, Xattrs: x})
				}
			}
			return out
		}(),
		"below a file":      {file("a", 1), file("a/b", 1)},
		"no parent":         {file("a/b", 1)},
		"absolute":          {file("/a", 1)},
		"dotdot":            {file("../a", 1)},
		"inner dotdot":      {file("a/../b", 1)},
		"nul":               {file("a\x00b", 1)},
		"long name":         {file(strings.Repeat("a", 256), 1)},
		"negative":          {file("a", -1)},
		"overflow":          {file("a", 1<<62), file("b", 1<<62)},
		"no kind":           {{Path: "a"}},
		"no target":         {{Path: "a", Kind: Symlink}},
		"long target":       {{Path: "a", Kind: Symlink, Target: strings.Repeat("x", 4096)}},
		"link to nothing":   {{Path: "a", Kind: File, Link: "b"}},
		"link to dir":       {dir("b"), {Path: "a", Kind: File, Link: "b"}},
		"link to link":      {file("c", 1), {Path: "b", Kind: File, Link: "c"}, {Path: "a", Kind: File, Link: "b"}},
		"hole past the end": {{Path: "a", Kind: File, Size: 5, Holes: []Hole{{4, 2}}}},
		"touching holes":    {{Path: "a", Kind: File, Size: 5, Holes: []Hole{{0, 2}, {2, 2}}}},
		"xattr twins":       {{Path: "a", Kind: File, Xattrs: []Xattr{{Name: "user.a"}, {Name: "user.a"}}}},
	} {
		if _, err := Build(nodes, Plan{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Build(nil, Plan{PieceLength: 3}); !errors.Is(err, ErrInvalid) {
		t.Errorf("piece length 3: %v", err)
	}
}
