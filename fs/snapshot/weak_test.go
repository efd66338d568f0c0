package snapshot

import (
	"os"
	"path/filepath"
	"testing"

	"dcfs/fs/tree"
)

// TestWeak: the weak sum of every piece is that of its first bytes, also where
// a piece is more than is read at once.
func TestWeak(t *testing.T) {
	for _, length := range []int64{tree.MinPieceLength, 4 * slabSize} {
		dir := t.TempDir()
		b := make([]byte, 5*length+123)
		for i := range b {
			b[i] = byte(i * i >> 3)
		}
		if err := os.WriteFile(filepath.Join(dir, "f"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		scan, err := tree.Scan(t.Context(), dir, tree.ScanOptions{})
		if err != nil {
			t.Fatal(err)
		}
		tr, err := tree.Build(scan.Nodes, tree.Plan{PieceLength: length})
		if err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		found, err := Hash(t.Context(), Config{Root: root, Tree: tr})
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		for id, sums := range tr.WithWeak(found.Weak).WeakSums() {
			if files++; tr.Path(id) != "f" || len(sums) != 5 {
				t.Errorf("%s: %d sums", tr.Path(id), len(sums))
			}
			for i, sum := range sums {
				if want := tree.WeakOf(b[int64(i)*length:][:tree.WeakWindow]).Sum(); sum != want {
					t.Errorf("piece %d of %d bytes: %x, want %x", i, length, sum, want)
				}
			}
		}
		if files != 1 {
			t.Errorf("%d files have weak sums", files)
		}
	}
}
