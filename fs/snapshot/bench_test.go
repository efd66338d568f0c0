package snapshot

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"dcfs/fs/tree"
)

// BenchmarkBound is what Hash cannot beat: SHA-1 and SHA-256 of every byte on
// all processors, from memory that is in the cache.
func BenchmarkBound(b *testing.B) {
	const size, rounds = 256 << 10, 100
	n := runtime.GOMAXPROCS(0)
	b.SetBytes(int64(n * size * rounds))
	for b.Loop() {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				buf := make([]byte, size)
				for range rounds {
					sha1.Sum(buf)
					sha256.Sum256(buf)
				}
			})
		}
		wg.Wait()
	}
}

func BenchmarkHash(b *testing.B) {
	for _, c := range []struct {
		name        string
		files, size int
		length      int64
	}{
		{"one file, 256 KiB pieces", 1, 256 << 20, 256 << 10},
		{"one file, 4 MiB pieces", 1, 256 << 20, 4 << 20},
		{"16 files, 1 MiB pieces", 16, 16 << 20, 1 << 20},
		{"4096 files of 16 KiB, 256 KiB pieces", 4096, 16 << 10, 256 << 10},
	} {
		b.Run(c.name, func(b *testing.B) {
			dir, files := b.TempDir(), map[string]int{}
			for i := range c.files {
				files[fmt.Sprintf("d%d/f%d", i/64, i)] = c.size
			}
			write(b, dir, files)
			cfg := scan(b, dir, tree.Plan{PieceLength: c.length})
			b.SetBytes(cfg.Tree.Total())
			for b.Loop() {
				if _, err := Hash(b.Context(), cfg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
