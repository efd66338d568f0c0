package activate

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"dcfs/fs/durable"
)

// TestLinks: what each link leads to, would be rolled back to, and is about to
// lead to while it is being moved.
func TestLinks(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link, state := filepath.Join(top, "link"), filepath.Join(top, "state")
	if got, err := Links(state); err != nil || len(got) > 0 {
		t.Fatalf("of nothing: %v, %v", got, err)
	}
	swap := func(target string, opt Options) error {
		opt.State, opt.Force = state, true
		_, err := Swap(link, filepath.Join(top, target), opt)
		return err
	}
	check := func(when, now, previous string, pending ...string) {
		t.Helper()
		got, err := Links(state)
		if err != nil || len(got) != 1 || got[0].Path != link {
			t.Fatalf("%s: %v, %v", when, got, err)
		}
		abs := func(name string) string {
			if name == "" {
				return ""
			}
			return filepath.Join(top, name)
		}
		for i := range pending {
			pending[i] = abs(pending[i])
		}
		if l := got[0]; l.Now != abs(now) || l.Previous != abs(previous) || !slices.Equal(l.Pending, pending) {
			t.Errorf("%s: %+v, want %q, before %q, pending %q", when, l, now, previous, pending)
		}
	}
	if err := swap("a", Options{}); err != nil {
		t.Fatal(err)
	}
	check("after the first swap", "a", "")
	during := durable.Disk{Before: func(op, path string) error {
		if op == "symlink" {
			check("while it moves", "a", "", "b")
		}
		return nil
	}}
	if err := swap("b", Options{Disk: during}); err != nil {
		t.Fatal(err)
	}
	check("after the second swap", "b", "a")
	broken := durable.Disk{Before: func(op, path string) error {
		if op == "symlink" {
			return errors.New("boom")
		}
		return nil
	}}
	if err := swap("c", Options{Disk: broken}); err == nil {
		t.Fatal("the fault had no effect")
	}
	check("after a swap that failed", "b", "a")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	check("without the link", "", "c")
	files, _ := filepath.Glob(filepath.Join(state, "links", "*.json"))
	if err := os.WriteFile(files[0], []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := Links(state); err == nil {
		t.Errorf("a damaged history: %v", got)
	}
}
