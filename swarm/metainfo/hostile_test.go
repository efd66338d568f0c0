package metainfo

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dcfs/fs/tree"
)

func TestStrictBencode(t *testing.T) {
	for _, s := range []string{
		"", "d", "de ", "le", "i1e", "3:abc", "d1:a", "d1:ae", "d1:ai1e", "di1ei1ee", "d1:bi1e1:ai1ee", "d1:ai1e1:ai1ee",
		"d1:ai01ee", "d1:ai-0ee", "d1:aiee", "d1:ai1", "d1:ai99999999999999999999ee", "d1:a01:be", "d1:a9:be", "d1:a-1:be",
		"d1:a4294967295:xe", "d1:a99999999999999999999:xe", "d1:axe", "d1:ale1:bi+1ee", "d" + strings.Repeat("l", 1<<20),
	} {
		if d, err := parseDict([]byte(s)); err == nil {
			t.Errorf("%.30q gave %v", s, d)
		}
	}
	for _, s := range []string{"de", "d0:i-5ee", "d1:ale1:bdee", "d1:al1:x0:i0eee"} {
		if _, err := parseDict([]byte(s)); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// Every cut, and every change of a byte outside the payload's hashes, is
// refused or leaves the info-hash as what identifies the release.
func TestParseDamaged(t *testing.T) {
	tr := build(t, dir("d"), file("d/f", 5), file("e", 0))
	b := create(t, tr, params(tr, "v"))
	for i := range b {
		if _, err := Parse(b[:i]); !errors.Is(err, ErrInvalid) {
			t.Fatalf("the first %d bytes: %v", i, err)
		}
		for _, x := range []byte{0x01, 0x80, 0xff} {
			c := slices.Clone(b)
			c[i] ^= x
			checkParsed(t, c)
		}
	}
	if _, err := Parse(append(slices.Clone(b), 'x')); !errors.Is(err, ErrInvalid) {
		t.Errorf("a byte more: %v", err)
	}
}

// checkParsed fails unless b is refused with the sentinel or all of it holds
// together.
func checkParsed(t testing.TB, b []byte) {
	m, err := Parse(b)
	if err != nil {
		if m != nil || !errors.Is(err, ErrInvalid) {
			t.Fatalf("%v, %v", m, err)
		}
		return
	}
	back, err := Parse(m.Encode())
	if err != nil {
		t.Fatalf("what Encode writes is refused: %v", err)
	}
	if back.InfoHash != m.InfoHash || back.Name != m.Name || !slices.Equal(back.Trackers, m.Trackers) ||
		!slices.Equal(back.WebSeeds, m.WebSeeds) || m.Layout.Count()*20 != len(m.Pieces) {
		t.Fatalf("%+v\n%+v", m, back)
	}
	if files, err := appendFiles(nil, m.Tree, len(b)); err != nil || !bytes.Contains(m.Info, files) {
		t.Fatalf("the list of files is not in it: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	tr := everything(f)
	f.Add(create(f, tr, params(tr, "app/1.0")))
	f.Fuzz(func(t *testing.T, b []byte) { checkParsed(t, b) })
}

func TestWriteFuzzSeeds(t *testing.T) {
	if os.Getenv("DCFS_WRITE_SEEDS") == "" {
		t.Skip("set DCFS_WRITE_SEEDS=1 to write the seed corpus")
	}
	one, empty := build(t, file("a", 1)), build(t)
	for name, b := range map[string][]byte{
		"everything": create(t, everything(t), params(everything(t), "app/1.0")),
		"one":        create(t, one, params(one, "one")),
		"empty":      create(t, empty, Params{Name: "empty", Pieces: make([]byte, 20)}),
	} {
		p := filepath.Join("testdata", "fuzz", "FuzzParse", name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A deep directory makes each of many files cost its whole path in the list,
// and little in the tree: Parse must not write that list out.
func TestParseIsBounded(t *testing.T) {
	nodes, p := []tree.Node(nil), ""
	for range 15 {
		p = filepath.Join(p, strings.Repeat("d", 250))
		nodes = append(nodes, dir(p))
	}
	for i := range 18_000 {
		nodes = append(nodes, file(p+"/"+strconv.Itoa(i), 0))
	}
	tr := build(t, nodes...)
	par := params(tr, "v")
	if _, err := Create(tr, par); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "list of files") {
		t.Fatalf("%v", err)
	}
	b := []byte("d4:dcfsd4:tree")
	b = append(appendString(b, tree.Encode(tr)), "7:versioni1ee5:filesle4:name1:v12:piece lengthi16384e6:pieces"...)
	b = append(appendString(b, par.Pieces), "7:privatei1ee"...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := ParseInfo(b)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "list of files") {
		t.Fatalf("%v", err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 24<<20 {
		t.Errorf("%d bytes of input took %d bytes", len(b), used)
	}
}
