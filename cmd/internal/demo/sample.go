package demo

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

const (
	smallFiles = 200
	bigFile    = 8 << 20 // bytes of all big files but the last

	// lastFile comes last in the sample and is read lazily.
	lastFile = "share/zz-last.bin"
)

// makeSample writes a tree that looks a little like a release: many small
// files, some big ones, a program, links, an empty directory. The same size
// gives the same content on every machine.
func makeSample(ctx context.Context, dir string, size int64) error {
	w := sampler{dir: dir, rng: rand.NewChaCha8([32]byte{'d', 'c', 'f', 's'}), left: size}
	for i := range smallFiles {
		n := min(512+w.number(8<<10), w.left/4)
		w.file(fmt.Sprintf("etc/app/%02d/conf-%03d.txt", i%10, i), n, 0o644)
	}
	w.file("bin/app", w.left/16, 0o755)
	last := w.left / 8
	for i := 0; w.left > last && w.err == nil && ctx.Err() == nil; i++ {
		w.file(fmt.Sprintf("share/part-%04d.bin", i), min(bigFile, w.left-last), 0o644)
	}
	w.file(lastFile, w.left, 0o600)
	if w.err == nil {
		w.err = ctx.Err()
	}
	w.link("app", "bin/run")
	w.link("../etc/app/00", "share/etc")
	if w.err == nil {
		w.err = os.Mkdir(filepath.Join(dir, "empty"), 0o750)
	}
	return w.err
}

// sampler writes files until the first error.
type sampler struct {
	dir  string
	rng  *rand.ChaCha8
	left int64
	err  error
}

func (w *sampler) number(below int64) int64 {
	var b [8]byte
	w.rng.Read(b[:])
	return int64(binary.LittleEndian.Uint64(b[:]) % uint64(below))
}

func (w *sampler) file(name string, n int64, mode os.FileMode) {
	if w.err != nil {
		return
	}
	w.left -= n
	path := filepath.Join(w.dir, name)
	if w.err = os.MkdirAll(filepath.Dir(path), 0o755); w.err != nil {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		w.err = err
		return
	}
	if _, w.err = io.CopyN(f, w.rng, n); w.err != nil {
		f.Close()
		return
	}
	w.err = f.Close()
}

func (w *sampler) link(target, name string) {
	if w.err == nil {
		w.err = os.Symlink(target, filepath.Join(w.dir, name))
	}
}
