package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"dcfs/cache/piece"
)

// deltaCase is a release and the next: what a host that has the first fetches
// of the second.
type deltaCase struct {
	name   string
	limit  float64 // bytes fetched over bytes of the pieces that hold a change
	tree   func(t testing.TB, dir string)
	change func(t testing.TB, dir string) []deltaChange
}

// deltaChange is a run of a file that the older release does not have.
type deltaChange struct {
	path        string
	off, length int64
}

const deltaBig = 64 << 20

var deltaCases = []deltaCase{
	{"2,000 files, 1 changed", 1.1, deltaSmallFiles, func(t testing.TB, dir string) []deltaChange {
		return deltaRewrite(t, dir, 1)
	}},
	{"2,000 files, 5 % changed", 1.1, deltaSmallFiles, func(t testing.TB, dir string) []deltaChange {
		return deltaRewrite(t, dir, 100)
	}},
	{"64 MiB file changed in 3 places", 1.1, deltaBigFile, func(t testing.TB, dir string) []deltaChange {
		b := deltaRead(t, filepath.Join(dir, "model.bin"))
		var out []deltaChange
		for _, off := range []int64{5, deltaBig / 3, deltaBig - 1000} {
			rand.NewChaCha8([32]byte{9, byte(off)}).Read(b[off : off+777])
			out = append(out, deltaChange{"model.bin", off, 777})
		}
		must(t, os.WriteFile(filepath.Join(dir, "model.bin"), b, 0o644))
		return out
	}},
	{"64 MiB file, 12,345 bytes inserted at its start", 1.2, deltaBigFile, func(t testing.TB, dir string) []deltaChange {
		b := slices.Concat(deltaBytes(7, 12_345), deltaRead(t, filepath.Join(dir, "model.bin")))
		must(t, os.WriteFile(filepath.Join(dir, "model.bin"), b, 0o644))
		return []deltaChange{{"model.bin", 0, 12_345}}
	}},
	{"64 MiB file, bytes inserted and cut in 5 places", 1.2, deltaBigFile, func(t testing.TB, dir string) []deltaChange {
		old := deltaRead(t, filepath.Join(dir, "model.bin"))
		var b []byte
		var out []deltaChange
		for i := range 5 {
			at, end := i*deltaBig/5, (i+1)*deltaBig/5
			out = append(out, deltaChange{"model.bin", int64(len(b)), int64(1000 + i)})
			b = slices.Concat(b, deltaBytes(byte(i), 1000+i), old[at+333*i:end])
		}
		must(t, os.WriteFile(filepath.Join(dir, "model.bin"), b, 0o644))
		return out
	}},
	{"64 MiB file renamed and moved, nothing changed", 1.1, deltaBigFile, func(t testing.TB, dir string) []deltaChange {
		must(t, os.Mkdir(filepath.Join(dir, "weights"), 0o755))
		must(t, os.Rename(filepath.Join(dir, "model.bin"), filepath.Join(dir, "weights", "v2.bin")))
		return nil
	}},
}

func deltaBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1, seed}).Read(b)
	return b
}

func deltaRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

func deltaPath(i int) string { return fmt.Sprintf("lib/%02d/f%04d", i%40, i) }

func deltaSmallFiles(t testing.TB, dir string) {
	for i := range 2000 {
		path := filepath.Join(dir, deltaPath(i))
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		b := make([]byte, 1+(i*i*37)%20_000)
		rand.NewChaCha8([32]byte{2, byte(i), byte(i >> 8)}).Read(b)
		must(t, os.WriteFile(path, b, 0o644))
	}
}

// deltaBigFile also makes small files, which share pieces with its end.
func deltaBigFile(t testing.TB, dir string) {
	must(t, os.WriteFile(filepath.Join(dir, "model.bin"), deltaBytes(1, deltaBig), 0o644))
	for i := range 20 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("z%02d", i)), deltaBytes(byte(i), 9000+i), 0o644))
	}
}

// deltaRewrite gives n of the small files other content and another length,
// so that everything behind them moves.
func deltaRewrite(t testing.TB, dir string, n int) (out []deltaChange) {
	for k := range n {
		path := deltaPath((k*19 + 1000) % 2000)
		size := 5000 + 13*k
		must(t, os.WriteFile(filepath.Join(dir, path), deltaBytes(byte(100+k), size), 0o644))
		out = append(out, deltaChange{path, 0, int64(size)})
	}
	return out
}

// deltaResult is a row of the table.
type deltaResult struct {
	name             string
	release, changed int64 // bytes; changed counts whole pieces
	written          int64 // bytes that were changed, to the byte
	fetched, reused  int64
	length           int64 // of a piece
}

// ratio is 0 when nothing changed and nothing was fetched.
func (r deltaResult) ratio() float64 { return float64(r.fetched) / float64(max(r.changed, 1)) }

// measureDelta publishes a release and the next, lets a host fetch the first
// and then the second, and compares the copy with what was published.
func measureDelta(t testing.TB, c deltaCase) deltaResult {
	t.Helper()
	h := newDeltaHost(t)
	dir := filepath.Join(h.dir, "source")
	must(t, os.Mkdir(dir, 0o755))
	c.tree(t, dir)
	h.publish(dir, "old")
	changes := c.change(t, dir)
	next := h.publish(dir, "new")
	h.serve()
	h.fetch("old", filepath.Join(h.dir, "dest", "old"))
	f := h.fetch("new", filepath.Join(h.dir, "dest", "new"))
	h.run("host", "verify", filepath.Join(h.dir, "new.torrent"), filepath.Join(h.dir, "dest", "new"))
	sameContent(t, dir, filepath.Join(h.dir, "dest", "new"))
	h.run("host", "verify", filepath.Join(h.dir, "old.torrent"), filepath.Join(h.dir, "dest", "old"))

	r := deltaResult{name: c.name, release: f.Bytes, fetched: f.Fetched, reused: f.Reused, length: next.Layout.Length}
	pieces := piece.NewSet(next.Layout.Count())
	for _, ch := range changes {
		id, ok := next.Tree.Find(ch.path)
		if !ok {
			t.Fatalf("%s is not in the release", ch.path)
		}
		off, _ := next.Tree.Span(id)
		cover := next.Layout.Cover(off+ch.off, ch.length)
		for i := cover.First; i < cover.End; i++ {
			pieces.Add(i)
		}
		r.written += ch.length
	}
	for i := range pieces.All() {
		r.changed += next.Layout.Size(i)
	}
	return r
}

// sameContent compares two directories file by file.
func sameContent(t testing.TB, want, got string) {
	t.Helper()
	must(t, filepath.WalkDir(want, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(want, path)
		a, errA := os.ReadFile(path)
		b, errB := os.ReadFile(filepath.Join(got, rel))
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs", rel)
		}
		return nil
	}))
}

// TestDelta: a host that has the release before fetches what changed, and
// little more.
func TestDelta(t *testing.T) {
	for _, c := range deltaCases {
		t.Run(c.name, func(t *testing.T) {
			r := measureDelta(t, c)
			t.Logf("release %d, changed %d, in pieces of %d: %d, fetched %d, reused %d: ratio %.3f",
				r.release, r.written, r.length, r.changed, r.fetched, r.reused, r.ratio())
			if float64(r.fetched) > c.limit*float64(r.changed) {
				t.Errorf("fetched %d bytes for %d changed: more than %.1f of it", r.fetched, r.changed, c.limit)
			}
			if r.fetched+r.reused < r.release {
				t.Errorf("fetched %d and reused %d of %d: where is the rest from?", r.fetched, r.reused, r.release)
			}
		})
	}
}

// TestDeltaFlags: a directory without a receipt is good for as much, and with
// --reuse-hardlinks what did not change is one file in both releases.
func TestDeltaFlags(t *testing.T) {
	h := newDeltaHost(t)
	dir := filepath.Join(h.dir, "source")
	must(t, os.Mkdir(dir, 0o755))
	deltaBigFile(t, dir)
	old := filepath.Join(t.TempDir(), "old")
	if out, err := exec.Command("cp", "-a", dir, old).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.publish(dir, "old")
	must(t, os.WriteFile(filepath.Join(dir, "z05"), []byte("changed"), 0o644))
	next := h.publish(dir, "new")
	h.serve()

	plain := filepath.Join(h.dir, "plain")
	f := h.fetch("new", plain, "--reuse", old, "--reuse", filepath.Join(h.dir, "nothing-here"))
	if f.Fetched > next.Layout.Length || f.Reused < f.Bytes-next.Layout.Length {
		t.Errorf("fetched %d, reused %d of %d", f.Fetched, f.Reused, f.Bytes)
	}
	sameContent(t, dir, plain)
	if sameInode(t, filepath.Join(old, "model.bin"), filepath.Join(plain, "model.bin")) {
		t.Error("hardlinked without being asked for")
	}

	h.fetch("old", filepath.Join(h.dir, "dest", "old"))
	linked := filepath.Join(h.dir, "dest", "new")
	h.fetch("new", linked, "--reuse-hardlinks")
	sameContent(t, dir, linked)
	shares := func(name string) bool {
		return sameInode(t, filepath.Join(linked, name), filepath.Join(plain, name)) ||
			sameInode(t, filepath.Join(linked, name), filepath.Join(h.dir, "dest", "old", name))
	}
	for _, name := range []string{"model.bin", "z00", "z19"} {
		if !shares(name) {
			t.Errorf("%s is not shared", name)
		}
	}
	if sameInode(t, filepath.Join(linked, "z05"), filepath.Join(h.dir, "dest", "old", "z05")) {
		t.Error("what changed is shared")
	}
	for dest, version := range map[string]string{linked: "new", plain: "new", filepath.Join(h.dir, "dest", "old"): "old"} {
		h.run("host", "verify", filepath.Join(h.dir, version+".torrent"), dest)
	}
}

func sameInode(t testing.TB, a, b string) bool {
	t.Helper()
	x, errA := os.Stat(a)
	y, errB := os.Stat(b)
	must(t, errors.Join(errA, errB))
	return os.SameFile(x, y)
}

// BenchmarkDelta prints the table of `make bench`:
//
//	go test -run '^$' -bench Delta -benchtime 1x ./integration
func BenchmarkDelta(b *testing.B) {
	var rows []deltaResult
	for _, c := range deltaCases {
		b.Run(c.name, func(b *testing.B) {
			var r deltaResult
			for b.Loop() {
				r = measureDelta(b, c)
			}
			b.ReportMetric(r.ratio(), "fetched/changed")
			rows = append(rows, r)
		})
	}
	fmt.Printf("\n%-50s %9s %11s %14s %10s %10s %7s\n", "delta between releases", "release", "changed", "in pieces", "fetched", "reused", "ratio")
	kib := func(n int64) string { return fmt.Sprintf("%.0f KiB", float64(n)/1024) }
	for _, r := range rows {
		fmt.Printf("%-50s %9s %11s %14s %10s %10s %7.3f\n", r.name, kib(r.release), kib(r.written),
			kib(r.changed)+"/"+fmt.Sprint(r.length>>10), kib(r.fetched), kib(r.reused), r.ratio())
	}
}
