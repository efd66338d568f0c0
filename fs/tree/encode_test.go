package tree

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// same fails unless the trees agree in all that can be asked of them.
func same(t interface {
	Helper()
	Fatalf(string, ...any)
}, a, b *Tree) {
	t.Helper()
	if a.Len() != b.Len() || a.Total() != b.Total() || a.PieceLength() != b.PieceLength() {
		t.Fatalf("%d entries, %d bytes, pieces of %d; want %d, %d, %d",
			b.Len(), b.Total(), b.PieceLength(), a.Len(), a.Total(), a.PieceLength())
	}
	if x, y := slices.Collect(a.Stream()), slices.Collect(b.Stream()); !slices.Equal(x, y) {
		t.Fatalf("stream %v, want %v", y, x)
	}
	for id := range ID(a.Len()) {
		if diff := cmp.Diff(a.Entry(id), b.Entry(id), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("entry %d:\n%s", id, diff)
		}
		f1, n1 := a.Children(id)
		f2, n2 := b.Children(id)
		if f1 != f2 || n1 != n2 {
			t.Fatalf("children of %d: %d from %d, want %d from %d", id, n2, f2, n1, f1)
		}
	}
}

// fixed is a tree with one of everything.
func fixed() *Tree {
	sum := func(s string) [32]byte { return sha256.Sum256([]byte(s)) }
	acl := Xattr{"system.posix_acl_access", []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255}}
	capability := Xattr{"security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00")}
	nodes := []Node{
		{Path: ".", Kind: Dir, Mode: 0o1777, Mtime: 1_700_000_000_123_456_789},
		{Path: "bin", Kind: Dir, Mode: 0o755, UID: 7, GID: 8, Mtime: 1_700_000_001e9},
		{Path: "bin/ping", Kind: File, Mode: 0o4755, Size: 70_000, Sum: sum("ping"), Xattrs: []Xattr{capability, acl}},
		{Path: "bin/pong", Kind: File, Link: "bin/ping"},
		{Path: "bin/old", Kind: File, Mode: 0o644, Mtime: -1, Size: 1, Sum: sum("old"), Xattrs: []Xattr{acl}},
		{Path: "bin/acl", Kind: File, Mode: 0o644, Mtime: math.MinInt64, Size: 3, Sum: sum("acl"), Xattrs: []Xattr{acl}},
		{Path: "empty", Kind: File, Mode: 0o600, Mtime: math.MaxInt64, Sum: sum("")},
		{Path: "link", Kind: Symlink, Mode: 0o777, Target: "bin/ping"},
		{Path: "n\xff\n", Kind: Dir, Mode: 0o700},
		{Path: "sparse", Kind: File, Mode: 0o644, Size: 1 << 20, Holes: []Hole{{0, 4096}, {8192, 1<<20 - 8192}}, Sum: sum("sparse")},
	}
	t, err := Build(nodes, Plan{PieceLength: MinPieceLength, Hot: []string{"bin/old"}})
	if err != nil {
		panic(err)
	}
	return t
}

// What a release looks like on the wire has to be the same with every version
// of dcfs: the info-hash depends on it. When only the second digest differs,
// the zstd library compresses in another way than the pinned one: old releases
// can still be read, but publishing the same directory gives another info-hash.
func TestEncodeGolden(t *testing.T) {
	const (
		wantColumns  = "91d809878049fa8af5b8ddb160d6b2129a62ad145693ff536b99778933339ad8"
		wantEncoding = "420299e0da2b3c3b9e936ca770a8cf31a20afac6387d8058717210d6aa9efa55"
	)
	b := Encode(fixed())
	columns, digests, err := unpack(b)
	if err != nil {
		t.Fatal(err)
	}
	c := sha256.Sum256(append(slices.Clone(columns), digests...))
	if got := hex.EncodeToString(c[:]); got != wantColumns {
		t.Errorf("columns %s, want %s", got, wantColumns)
	}
	e := sha256.Sum256(b)
	if got := hex.EncodeToString(e[:]); got != wantEncoding {
		t.Errorf("encoding %s, want %s", got, wantEncoding)
	}
}

// TestRepetitiveTreesStayReadable makes a tree that compresses better than
// Decode believes.
func TestRepetitiveTreesStayReadable(t *testing.T) {
	target := strings.Repeat("x", maxPath)
	var nodes []Node
	for i := range 400 {
		nodes = append(nodes, Node{Path: strconv.Itoa(i), Kind: Symlink, Target: target})
	}
	tr := mustBuild(t, Plan{}, nodes...)
	b := Encode(tr)
	if b[len(magic)] != stored {
		t.Fatal("the tree was compressed: the test needs a more repetitive one")
	}
	back, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	same(t, tr, back)
}

func TestWithSums(t *testing.T) {
	tr := fixed()
	var asked []string
	out := tr.WithSums(func(id ID) [32]byte {
		asked = append(asked, tr.Path(id))
		return sha256.Sum256([]byte(tr.Path(id)))
	})
	if want := []string{"empty", "sparse", "bin/acl", "bin/old", "bin/ping"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	pong, _ := out.Find("bin/pong")
	if out.Entry(pong).Sum != sha256.Sum256([]byte("bin/ping")) {
		t.Error("the further name does not have the inode's digest")
	}
	if tr.Entry(pong).Sum != sha256.Sum256([]byte("ping")) {
		t.Error("the first tree changed")
	}
}

// drawNodes makes the nodes of any tree that Build takes.
func drawNodes(t *rapid.T) []Node {
	dirs, files, used := []string{"."}, []string(nil), map[string]bool{}
	nodes := []Node{{Path: ".", Kind: Dir, Mode: 0o755}}
	name := rapid.StringMatching(`[a-c\x{0}-\x{ff}]{1,6}`)
	for i := range rapid.IntRange(0, 40).Draw(t, "entries") {
		base := strings.NewReplacer("/", "_", "\x00", "_").Replace(name.Draw(t, "name"))
		p := filepath.Join(rapid.SampledFrom(dirs).Draw(t, "dir"), base)
		if base == "." || base == ".." || used[p] {
			continue
		}
		used[p] = true
		n := Node{
			Path: p, Mode: rapid.Uint32Range(0, 0o7777).Draw(t, "mode"),
			UID: rapid.SampledFrom([]uint32{0, 1000, math.MaxUint32}).Draw(t, "uid"), GID: rapid.Uint32Range(0, 2).Draw(t, "gid"),
			Mtime: rapid.Int64().Draw(t, "mtime"), Sum: sha256.Sum256([]byte{byte(i)}),
		}
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			n.Kind, dirs = Dir, append(dirs, p)
		case 1:
			n.Kind, n.Target = Symlink, rapid.StringMatching(`[a-z/]{1,9}`).Draw(t, "target")
		case 2:
			if len(files) > 0 {
				n.Kind, n.Link = File, rapid.SampledFrom(files).Draw(t, "link")
				break
			}
			fallthrough
		default:
			n.Kind, n.Size = File, rapid.SampledFrom([]int64{0, 1, 5000, 100_000, 1 << 40}).Draw(t, "size")
			n.Holes = drawHoles(t, n.Size)
			files = append(files, p)
		}
		if n.Link == "" && rapid.Bool().Draw(t, "with xattrs") {
			for _, k := range rapid.SliceOfDistinct(rapid.StringMatching(`user\.[a-c]`), rapid.ID).Draw(t, "xattrs") {
				n.Xattrs = append(n.Xattrs, Xattr{k, rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "value")})
			}
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func drawHoles(t *rapid.T, size int64) []Hole {
	var out []Hole
	for end := int64(0); end < size && rapid.Bool().Draw(t, "hole"); {
		h := Hole{Offset: end + rapid.Int64Range(min(end, 1), 4096).Draw(t, "gap")}
		h.Length = rapid.Int64Range(1, 1<<16).Draw(t, "length")
		end = h.Offset + h.Length
		if end > size {
			break
		}
		out = append(out, h)
	}
	return out
}

func TestEncodeComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := drawNodes(t)
		hot := rapid.SliceOf(rapid.SampledFrom(nodes)).Draw(t, "hot")
		plan := Plan{PieceLength: rapid.SampledFrom([]int64{0, MinPieceLength, MaxPieceLength}).Draw(t, "piece length")}
		for _, n := range hot {
			plan.Hot = append(plan.Hot, n.Path)
		}
		tr, err := Build(nodes, plan)
		if err != nil {
			t.Fatalf("%v", err)
		}
		b := Encode(tr)
		back, err := Decode(b)
		if err != nil {
			t.Fatalf("%v", err)
		}
		same(t, tr, back)
		if !bytes.Equal(Encode(back), b) {
			t.Fatal("the second encoding differs")
		}
	})
}

// store encodes t without compression.
func store(t *Tree) []byte {
	columns, digests := columnsOf(t)
	return frame(stored, len(columns), columns, digests)
}

// canonical fails unless b is refused or is how Encode writes the tree.
func canonical(t testing.TB, b []byte) bool {
	tr, err := Decode(b)
	if err != nil {
		if !errors.Is(err, ErrInvalid) {
			t.Fatalf("%v is no ErrInvalid", err)
		}
		return false
	}
	c1, d1, err1 := unpack(b)
	c2, d2 := columnsOf(tr)
	if err1 != nil || !bytes.Equal(c1, c2) || !bytes.Equal(d1, d2) {
		t.Fatalf("%x\nis written as\n%x", c1, c2)
	}
	return true
}

// Every change of one byte of the columns, and every byte more, is refused or
// gives another tree whose only encoding it is.
func TestDecodeIsCanonical(t *testing.T) {
	columns, digests := columnsOf(fixed())
	taken, tried := 0, 0
	try := func(columns []byte) {
		tried++
		if canonical(t, frame(stored, len(columns), columns, digests)) {
			taken++
		}
	}
	for i := range columns {
		for v := range 256 {
			try(slices.Concat(columns[:i], []byte{byte(v)}, columns[i+1:]))
		}
		for _, v := range []byte{0, 1, 2, 0x7f, 0x80, 0xff} {
			try(slices.Concat(columns[:i], []byte{v}, columns[i:]))
		}
		try(columns[:i])
	}
	if taken == 0 || taken == tried {
		t.Errorf("%d of %d changes were taken", taken, tried)
	}
	whole := Encode(fixed())
	for i := range whole {
		if canonical(t, whole[:i]) {
			t.Errorf("the first %d of %d bytes were taken", i, len(whole))
		}
	}
	if canonical(t, append(whole, 0)) {
		t.Error("a byte more was taken")
	}
}

// A small input must not make Decode take much memory, whatever it claims.
func TestDecodeIsBounded(t *testing.T) {
	packed := compress(make([]byte, 200<<20))
	for name, b := range map[string][]byte{
		"bomb":  frame(zstded, 200<<20, packed, nil),
		"liar":  frame(zstded, 1000, packed, nil),
		"crowd": frame(stored, 6, []byte{14, 0xff, 0xff, 0xff, 0xff, 0x0f}, nil),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Decode(b)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
			t.Errorf("%s: %d bytes of input took %d bytes", name, len(b), used)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(fixed()))
	f.Add(store(fixed()))
	f.Fuzz(func(t *testing.T, b []byte) { canonical(t, b) })
}

// TestWriteFuzzSeeds writes testdata/fuzz anew when asked to.
func TestWriteFuzzSeeds(t *testing.T) {
	if os.Getenv("DCFS_WRITE_SEEDS") == "" {
		t.Skip("set DCFS_WRITE_SEEDS=1 to write the seed corpus")
	}
	for name, tr := range map[string]*Tree{"everything": fixed(), "empty": mustBuild(t, Plan{}), "one": mustBuild(t, Plan{}, file("a", 1))} {
		for kind, b := range map[string][]byte{"packed": Encode(tr), "stored": store(tr)} {
			p := filepath.Join("testdata", "fuzz", "FuzzDecode", name+"-"+kind)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", b), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCompressSmall: small inputs come out as with the window of large ones.
func TestCompressSmall(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 255, 256, 257, 1023, 1024, 1025, 5000, 65535, 65536, 100_000, oneBlock - 1, oneBlock, oneBlock + 1} {
		for _, symbols := range []int{1, 3, 20, 256} {
			b := make([]byte, n)
			for i := range b {
				if b[i] = byte(r.IntN(symbols)); i > 300 && r.IntN(3) > 0 {
					b[i] = b[i-300]
				}
			}
			if !bytes.Equal(compress(b), compressIn(largeWindow, b)) {
				t.Errorf("%d bytes of %d symbols differ", n, symbols)
			}
		}
	}
}
