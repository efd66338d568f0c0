// Package delta makes pairs of directories, a release and the next, and counts
// what a host that has the first cannot but fetch of the second.
//
// The tests and the benchmarks of integration share it. It must never run what
// is measured, nor know what a host did fetch: it says what there was to fetch.
package delta

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"dcfs/cache/piece"
	"dcfs/swarm/metainfo"
)

// Case is a release and what becomes of it.
type Case struct {
	Name string

	// Limit is how many bytes a host may fetch for each byte of the pieces
	// that hold a change.
	Limit float64

	// Tree fills an empty directory; Change then makes the next release of it.
	Tree   func(dir string) error
	Change func(dir string) ([]Change, error)
}

// Change is a run of a file of the next release that the one before lacks.
type Change struct {
	Path        string
	Off, Length int64
}

// Cases are the releases that are measured.
var Cases = []Case{
	{"2,000 files, 1 changed", 1.1, smallFiles, rewrite(1)},
	{"2,000 files, 5 % changed", 1.1, smallFiles, rewrite(100)},
	{"64 MiB file changed in 3 places", 1.1, BigFile, overwrite},
	{"64 MiB file, 12,345 bytes inserted at its start", 1.2, BigFile, insert},
	{"64 MiB file, bytes inserted and cut in 5 places", 1.2, BigFile, splice},
	{"64 MiB file renamed and moved, nothing changed", 1.1, BigFile, move},
}

const bigSize = 64 << 20

// random returns n bytes that depend on nothing but the seed.
func random(n int, seed ...byte) []byte {
	var key [32]byte
	copy(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

func smallPath(i int) string { return fmt.Sprintf("lib/%02d/f%04d", i%40, i) }

func smallFiles(dir string) error {
	for i := range 2000 {
		path := filepath.Join(dir, smallPath(i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, random(1+(i*i*37)%20_000, 's', byte(i), byte(i>>8)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// BigFile makes model.bin, and small files z00 to z19, which share pieces with
// its end.
func BigFile(dir string) error {
	if err := os.WriteFile(big(dir), random(bigSize, 'b'), 0o644); err != nil {
		return err
	}
	for i := range 20 {
		name := filepath.Join(dir, fmt.Sprintf("z%02d", i))
		if err := os.WriteFile(name, random(9000+i, 'z', byte(i)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func big(dir string) string { return filepath.Join(dir, "model.bin") }

// rewrite gives n of the small files other content and another length, so that
// everything behind them moves.
func rewrite(n int) func(dir string) ([]Change, error) {
	return func(dir string) (out []Change, err error) {
		for k := range n {
			path := smallPath((k*19 + 1000) % 2000)
			size := 5000 + 13*k
			if err := os.WriteFile(filepath.Join(dir, path), random(size, 'r', byte(k)), 0o644); err != nil {
				return nil, err
			}
			out = append(out, Change{path, 0, int64(size)})
		}
		return out, nil
	}
}

func overwrite(dir string) (out []Change, err error) {
	b, err := os.ReadFile(big(dir))
	if err != nil {
		return nil, err
	}
	for i, off := range []int64{5, bigSize / 3, bigSize - 1000} {
		copy(b[off:], random(777, 'o', byte(i)))
		out = append(out, Change{"model.bin", off, 777})
	}
	return out, os.WriteFile(big(dir), b, 0o644)
}

func insert(dir string) ([]Change, error) {
	old, err := os.ReadFile(big(dir))
	if err != nil {
		return nil, err
	}
	const n = 12_345
	return []Change{{"model.bin", 0, n}}, os.WriteFile(big(dir), slices.Concat(random(n, 'i'), old), 0o644)
}

func splice(dir string) (out []Change, err error) {
	old, err := os.ReadFile(big(dir))
	if err != nil {
		return nil, err
	}
	var b []byte
	for i := range 5 {
		at, end := i*bigSize/5, (i+1)*bigSize/5
		out = append(out, Change{"model.bin", int64(len(b)), int64(1000 + i)})
		b = slices.Concat(b, random(1000+i, 'p', byte(i)), old[at+333*i:end])
	}
	return out, os.WriteFile(big(dir), b, 0o644)
}

func move(dir string) ([]Change, error) {
	if err := os.Mkdir(filepath.Join(dir, "weights"), 0o755); err != nil {
		return nil, err
	}
	return nil, os.Rename(big(dir), filepath.Join(dir, "weights", "v2.bin"))
}

// Least is what there is to fetch, to the byte, in whole files and in whole
// pieces.
type Least struct {
	Bytes, Files, Pieces int64
	PieceLength          int64
}

// Of counts changes in the release that the torrent describes.
func Of(torrent []byte, changes []Change) (Least, error) {
	m, err := metainfo.Parse(torrent)
	if err != nil {
		return Least{}, err
	}
	least := Least{PieceLength: m.Layout.Length}
	pieces, files := piece.NewSet(m.Layout.Count()), map[string]int64{}
	for _, c := range changes {
		id, ok := m.Tree.Find(c.Path)
		if !ok {
			return Least{}, fmt.Errorf("%s is not in the release", c.Path)
		}
		off, size := m.Tree.Span(id)
		cover := m.Layout.Cover(off+c.Off, c.Length)
		for i := cover.First; i < cover.End; i++ {
			pieces.Add(i)
		}
		least.Bytes += c.Length
		files[c.Path] = size
	}
	for _, size := range files {
		least.Files += size
	}
	for i := range pieces.All() {
		least.Pieces += m.Layout.Size(i)
	}
	return least, nil
}
