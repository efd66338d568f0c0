package repair

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"dcfs/fs/materialise"
	"dcfs/fs/release"
)

var web1 = &release.Release{Name: "web-1", InfoHash: [20]byte{1}}

// setup returns a state directory and a damaged release.
func setup(t *testing.T) (state, dir string) {
	t.Helper()
	top := t.TempDir()
	dir = filepath.Join(top, "web-1")
	write(t, filepath.Join(dir, "file"), "damaged")
	return filepath.Join(top, "state"), dir
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, dir string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestReplace(t *testing.T) {
	state, dir := setup(t)
	link := filepath.Join(state, "current")
	if err := errors.Join(os.Mkdir(state, 0o755), os.Symlink(dir, link)); err != nil {
		t.Fatal(err)
	}
	err := Replace(context.Background(), state, link, web1, func(_ context.Context, dest string) error {
		if got := content(t, dir); got != "damaged" {
			t.Errorf("the directory is %q while the new copy is fetched", got)
		}
		write(t, filepath.Join(dest, "file"), "right")
		return materialise.WriteReceipt(state, dest, web1.Name, web1.InfoHash)
	})
	if err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); to != dir {
		t.Errorf("the link leads to %q (%v)", to, err)
	}
	if got := content(t, dir); got != "right" {
		t.Errorf("content %q", got)
	}
	if ok, err := materialise.Complete(state, dir, web1.InfoHash); !ok || err != nil {
		t.Errorf("no receipt for the new copy: %v", err)
	}
	for place, want := range map[string]int{filepath.Dir(dir): 2, filepath.Join(state, "receipts"): 1} {
		if left, err := os.ReadDir(place); err != nil || len(left) != want {
			t.Errorf("%s holds %v (%v), want %d entries", place, left, err, want)
		}
	}
}

func TestReplaceFails(t *testing.T) {
	boom := errors.New("boom")
	for name, fetch := range map[string]func(string) error{
		"fetch fails":          func(string) error { return boom },
		"the copy is no whole": func(dest string) error { return os.Mkdir(dest, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			state, dir := setup(t)
			err := Replace(context.Background(), state, dir, web1, func(_ context.Context, dest string) error { return fetch(dest) })
			if err == nil {
				t.Error("no error")
			}
			if got := content(t, dir); got != "damaged" {
				t.Errorf("the directory was touched: %q", got)
			}
		})
	}
}
