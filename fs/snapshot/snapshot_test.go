package snapshot

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"dcfs/fs/tree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const pieceLength = tree.MinPieceLength

// content returns n bytes that depend on the name.
func content(name string, n int) []byte {
	var seed [32]byte
	copy(seed[:], name)
	out := make([]byte, n)
	rand.NewChaCha8(seed).Read(out)
	return out
}

// write makes a directory of files, "path: size".
func write(t testing.TB, dir string, files map[string]int) {
	t.Helper()
	for name, size := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, content(name, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// scan makes the configuration for the directory as it is now.
func scan(t testing.TB, dir string, plan tree.Plan) Config {
	t.Helper()
	found, err := tree.Scan(t.Context(), dir, tree.ScanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := tree.Build(found.Nodes, plan)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return Config{Root: root, Tree: tr, Check: found.Check}
}

// payload puts the stream together the plain way.
func payload(t testing.TB, dir string, tr *tree.Tree) []byte {
	t.Helper()
	out := make([]byte, tr.Total())
	for id := range tr.Stream() {
		data, err := os.ReadFile(filepath.Join(dir, tr.Path(id)))
		if err != nil {
			t.Fatal(err)
		}
		off, _ := tr.Span(id)
		copy(out[off:], data)
	}
	return out
}

func pieceHashes(stream []byte, length int64) []byte {
	var out []byte
	for len(stream) > 0 {
		n := min(length, int64(len(stream)))
		sum := sha1.Sum(stream[:n])
		out, stream = append(out, sum[:]...), stream[n:]
	}
	return out
}

func checkResult(t testing.TB, dir string, cfg Config, got Result) {
	t.Helper()
	if want := pieceHashes(payload(t, dir, cfg.Tree), cfg.Tree.PieceLength()); !bytes.Equal(got.Pieces, want) {
		t.Error("the piece hashes are wrong")
	}
	for id := tree.ID(0); int(id) < cfg.Tree.Len(); id++ {
		if cfg.Tree.Kind(id) != tree.File {
			if got.Sum(id) != [32]byte{} {
				t.Errorf("%s has a sum and is no file", cfg.Tree.Path(id))
			}
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, cfg.Tree.Path(id)))
		if err != nil {
			t.Fatal(err)
		}
		if got.Sum(id) != sha256.Sum256(data) {
			t.Errorf("%s has the wrong sum", cfg.Tree.Path(id))
		}
	}
}

// memSink refuses to be given a byte twice.
type memSink struct {
	mu   sync.Mutex
	data []byte
	seen []bool
}

func (m *memSink) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range p {
		if m.seen[off+int64(i)] {
			return 0, fmt.Errorf("byte %d came twice", off+int64(i))
		}
		m.seen[off+int64(i)] = true
	}
	return copy(m.data[off:], p), nil
}

func TestHash(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]int{
		"a/tiny": 1, "a/empty": 0, "a/exact": pieceLength, "b/large": 9*pieceLength + 5,
		"b/c/spans two": pieceLength + 1, "b/c/d/more": 100, "top": 7, "z\xff": 3 * pieceLength,
	})
	if err := os.Link(filepath.Join(dir, "b/large"), filepath.Join(dir, "a/linked")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("top", filepath.Join(dir, "pointer")); err != nil {
		t.Fatal(err)
	}
	cfg := scan(t, dir, tree.Plan{PieceLength: pieceLength, Hot: []string{"top", "b/c/d/more"}})
	sink := &memSink{data: make([]byte, cfg.Tree.Total()), seen: make([]bool, cfg.Tree.Total())}
	cfg.Sink = sink
	var last int64
	cfg.Progress = func(done, total int64) {
		if done <= last || total != cfg.Tree.Total() {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}
	got, err := Hash(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	checkResult(t, dir, cfg, got)
	if last != cfg.Tree.Total() {
		t.Errorf("progress ended at %d", last)
	}
	if !bytes.Equal(sink.data, payload(t, dir, cfg.Tree)) || bytes.Contains(boolBytes(sink.seen), []byte{0}) {
		t.Error("the sink did not get the payload")
	}
}

func boolBytes(in []bool) []byte {
	out := make([]byte, len(in))
	for i, b := range in {
		if b {
			out[i] = 1
		}
	}
	return out
}

// Any sizes, order and number of workers give what the plain way gives.
func TestHashAgainstThePlainWay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		files, hot := map[string]int{}, []string{}
		// A piece that is a slab, and one of several slabs.
		length := rapid.SampledFrom([]int{pieceLength, 2 * slabSize}).Draw(rt, "piece length")
		for i := range rapid.IntRange(0, 20).Draw(rt, "files") {
			name := fmt.Sprintf("d%d/f%d", rapid.IntRange(0, 3).Draw(rt, "dir"), i)
			files[name] = rapid.OneOf(rapid.IntRange(0, 3000), rapid.IntRange(0, 6*length),
				rapid.SampledFrom([]int{0, length / 2, length, 2 * length})).Draw(rt, "size")
			if rapid.Bool().Draw(rt, "hot") {
				hot = append(hot, name)
			}
		}
		write(t, dir, files)
		found, err := tree.Scan(t.Context(), dir, tree.ScanOptions{})
		if err != nil {
			rt.Fatal(err)
		}
		tr, err := tree.Build(found.Nodes, tree.Plan{PieceLength: int64(length), Hot: hot})
		if err != nil {
			rt.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			rt.Fatal(err)
		}
		defer root.Close()
		cfg := Config{Root: root, Tree: tr, Check: found.Check, Workers: rapid.IntRange(1, 5).Draw(rt, "workers")}
		got, err := Hash(t.Context(), cfg)
		if err != nil {
			rt.Fatal(err)
		}
		checkResult(t, dir, cfg, got)
	})
}

type badSink struct{ after int64 }

var errSink = errors.New("no room")

func (b badSink) WriteAt(p []byte, off int64) (int, error) {
	if off >= b.after {
		return 0, errSink
	}
	return len(p), nil
}

func TestASinkThatFailsEndsTheRun(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]int{"big": 200 * pieceLength})
	cfg := scan(t, dir, tree.Plan{PieceLength: pieceLength})
	cfg.Sink = badSink{3 * pieceLength}
	if _, err := Hash(t.Context(), cfg); !errors.Is(err, errSink) {
		t.Fatalf("got %v", err)
	}
}

func TestHashEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]int{"big": 200 * pieceLength})
	cfg := scan(t, dir, tree.Plan{PieceLength: pieceLength})
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cfg.Progress = func(done, _ int64) {
		if done == 5*pieceLength {
			cancel(reason)
		}
	}
	if _, err := Hash(ctx, cfg); !errors.Is(err, reason) {
		t.Fatalf("got %v", err)
	}
	if _, err := NewReader(ctx, cfg).Read(make([]byte, 5)); !errors.Is(err, reason) {
		t.Fatalf("the reader: %v", err)
	}
}

func TestReader(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]int{"a": 100, "big": 5*pieceLength + 3, "sub/b": 70000, "sub/empty": 0})
	cfg := scan(t, dir, tree.Plan{PieceLength: pieceLength})
	want := payload(t, dir, cfg.Tree)
	r := NewReader(t.Context(), cfg)
	if err := iotest.TestReader(r, want); err != nil {
		t.Fatal(err)
	}
	r.Close()
	r = NewReader(t.Context(), cfg)
	r.Read(make([]byte, 10))
	r.Close()
	if _, err := r.Read(make([]byte, 10)); err == nil || err == io.EOF {
		t.Fatalf("a closed reader read: %v", err)
	}
}

func TestAReleaseWithoutContent(t *testing.T) {
	dir := t.TempDir()
	cfg := scan(t, dir, tree.Plan{})
	got, err := Hash(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if want := sha1.Sum([]byte{0}); !bytes.Equal(got.Pieces, want[:]) {
		t.Error("one byte of padding has the wrong hash")
	}
}
