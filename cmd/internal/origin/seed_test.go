package origin

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// TestFailedReleaseIsMappedOnce: a large metainfo that cannot be served is
// looked at again and again, and must not take room on the disk each time.
func TestFailedReleaseIsMappedOnce(t *testing.T) {
	state := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	lib, err := OpenLibrary(state, log)
	if err != nil {
		t.Fatal(err)
	}
	home := lib.home("web-1")
	if err := os.MkdirAll(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, metainfoFile), make([]byte, largeMetainfo), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newShelf(lib, nil, nil, log)
	for range 5 {
		if err := s.scan(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if !s.failed["web-1"] {
		t.Error("the release did not fail")
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(maps, []byte(state)); n > 1 {
		t.Errorf("it is mapped %d times", n)
	}
}
