package snapshot

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dcfs/fs/tree"
)

// changes are what can happen to the file "b" between the scan and its turn.
var changes = map[string]func(t *testing.T, p string){
	"removed":   func(t *testing.T, p string) { must(t, os.Remove(p)) },
	"shorter":   func(t *testing.T, p string) { must(t, os.Truncate(p, 5)) },
	"longer":    func(t *testing.T, p string) { must(t, os.WriteFile(p, content("b", 40000), 0o644)) },
	"rewritten": func(t *testing.T, p string) { must(t, os.WriteFile(p, content("x", 30000), 0o644)) },
	"replaced": func(t *testing.T, p string) {
		must(t, os.WriteFile(p+".new", content("x", 30000), 0o644))
		must(t, os.Rename(p+".new", p))
	},
	"rewritten, mtime set back": func(t *testing.T, p string) {
		info, err := os.Stat(p)
		must(t, err)
		must(t, os.WriteFile(p, content("x", 30000), 0o644))
		must(t, os.Chtimes(p, time.Time{}, info.ModTime()))
	},
	"a symlink": func(t *testing.T, p string) {
		must(t, os.Rename(p, p+".moved"))
		must(t, os.Symlink(filepath.Base(p)+".moved", p))
	},
	"a symlink to outside": func(t *testing.T, p string) {
		must(t, os.Remove(p))
		must(t, os.Symlink("/etc/passwd", p))
	},
	"a directory": func(t *testing.T, p string) {
		must(t, os.Remove(p))
		must(t, os.Mkdir(p, 0o755))
	},
	"a FIFO": func(t *testing.T, p string) {
		must(t, os.Remove(p))
		must(t, syscall.Mkfifo(p, 0o644))
	},
	"below a symlink": func(t *testing.T, p string) {
		dir := filepath.Dir(p)
		must(t, os.Rename(dir, dir+".moved"))
		must(t, os.Mkdir(dir, 0o755))
		must(t, os.WriteFile(p, content("x", 30000), 0o644))
	},
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAChangedFileFails(t *testing.T) {
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]int{"sub/a": 40, "sub/b": 30000, "sub/c": 40})
			cfg := scan(t, dir, tree.Plan{PieceLength: pieceLength})
			change(t, filepath.Join(dir, "sub/b"))
			if name == "below a symlink" {
				must(t, os.WriteFile(filepath.Join(dir, "sub/a"), content("sub/a", 40), 0o644))
			}
			_, err := Hash(t.Context(), cfg)
			checkChanged(t, err)
			r := NewReader(t.Context(), cfg)
			defer r.Close()
			_, err = io.Copy(io.Discard, r)
			checkChanged(t, err)
		})
	}
}

func checkChanged(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, tree.ErrChanged) || !strings.Contains(err.Error(), "sub/") {
		t.Errorf("got %v", err)
	}
}

// The change comes while the file itself is read.
func TestAChangeWhileReadingFails(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]int{"sub/big": 20 * pieceLength})
	for name, change := range map[string]func(*os.File) error{
		"in place": func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 1); return err },
		"longer":   func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 20*pieceLength); return err },
		"shorter":  func(f *os.File) error { return f.Truncate(3 * pieceLength) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := scan(t, dir, tree.Plan{PieceLength: pieceLength})
			cfg.Progress = func(done, _ int64) {
				if done != 2*pieceLength {
					return
				}
				f, err := os.OpenFile(filepath.Join(dir, "sub/big"), os.O_WRONLY, 0)
				if err == nil {
					err = errors.Join(change(f), f.Close())
				}
				if err != nil {
					t.Error(err)
				}
			}
			_, err := Hash(t.Context(), cfg)
			checkChanged(t, err)
		})
		must(t, os.WriteFile(filepath.Join(dir, "sub/big"), content("sub/big", 20*pieceLength), 0o644))
	}
}

func TestAnEmptyFileThatGrewFails(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]int{"sub/empty": 0, "sub/a": 5})
	cfg := scan(t, dir, tree.Plan{})
	must(t, os.WriteFile(filepath.Join(dir, "sub/empty"), []byte("x"), 0o644))
	_, err := Hash(t.Context(), cfg)
	checkChanged(t, err)
	_, err = io.Copy(io.Discard, NewReader(t.Context(), cfg))
	checkChanged(t, err)
}

func TestWithoutCheckSizeAndMtimeCount(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]int{"sub/a": 5})
	cfg := scan(t, dir, tree.Plan{})
	cfg.Check = nil
	if _, err := Hash(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	must(t, os.Chtimes(filepath.Join(dir, "sub/a"), time.Time{}, time.Unix(1, 0)))
	_, err := Hash(t.Context(), cfg)
	checkChanged(t, err)
}
