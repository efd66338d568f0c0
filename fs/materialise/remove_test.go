package materialise

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
)

// removable is a release on a host: a directory with a receipt.
func removable(t *testing.T) (state string, r Receipt) {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(top, "rel", "1")
	state = filepath.Join(top, "state")
	if err := os.MkdirAll(filepath.Join(dest, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "sub/b"} {
		if err := os.WriteFile(filepath.Join(dest, name), []byte(name), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteReceipt(state, dest, "1", [20]byte{1}); err != nil {
		t.Fatal(err)
	}
	r, ok, err := Lookup(state, dest)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return state, r
}

// whole tells whether the release stands, with its content and its receipt.
func whole(t *testing.T, state string, r Receipt) bool {
	t.Helper()
	_, ok, err := Lookup(state, r.Dest)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "sub/b"} {
		if b, err := os.ReadFile(filepath.Join(r.Dest, name)); err != nil || string(b) != name {
			return false
		}
	}
	return ok
}

// TestRemoveFaults fails every call of Remove once. Under the release's name
// stands the whole of it or nothing, at each such end, and the next call, or
// RemoveRemoved, finishes the job.
func TestRemoveFaults(t *testing.T) {
	for n := 0; ; n++ {
		state, r := removable(t)
		calls := 0
		broken := durable.Disk{Before: func(op, path string) error {
			if calls++; calls == n+1 {
				return unix.EIO
			}
			return nil
		}}
		err := Remove(broken, state, r, nil)
		if calls <= n { // there was no such call
			if err != nil {
				t.Fatal(err)
			}
			if n < 6 {
				t.Fatalf("only %d calls: the test shows nothing", n)
			}
			return
		}
		if !errors.Is(err, unix.EIO) {
			t.Fatalf("call %d failed, and Remove says %v", n, err)
		}
		if _, serr := os.Lstat(r.Dest); serr == nil {
			if !whole(t, state, r) {
				t.Fatalf("call %d: a part stands at %s", n, r.Dest)
			}
			if err := Remove(durable.Disk{}, state, r, nil); err != nil {
				t.Fatalf("call %d: again: %v", n, err)
			}
		}
		left, _ := os.ReadDir(filepath.Dir(r.Dest))
		for _, e := range left {
			if !IsRemoved(e.Name()) {
				t.Fatalf("call %d left %s", n, e.Name())
			}
			if err := RemoveRemoved(durable.Disk{}, filepath.Join(filepath.Dir(r.Dest), e.Name())); err != nil {
				t.Fatal(err)
			}
		}
		if left, _ := os.ReadDir(filepath.Dir(r.Dest)); len(left) > 0 {
			t.Fatalf("call %d: %v is left for good", n, left)
		}
		if _, ok, err := Lookup(state, r.Dest); ok || err != nil {
			t.Fatalf("call %d: %t, %v", n, ok, err)
		}
	}
}

func TestRemoveIsAskedOnceMore(t *testing.T) {
	state, r := removable(t)
	used := errors.New("used")
	err := Remove(durable.Disk{}, state, r, func(path string) error {
		if _, err := os.Lstat(r.Dest); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it has its name while it is asked for: %v", err)
		}
		if b, err := os.ReadFile(filepath.Join(path, "a")); err != nil || string(b) != "a" {
			t.Errorf("it is not at %s: %v", path, err)
		}
		return used
	})
	if !errors.Is(err, used) || !whole(t, state, r) {
		t.Errorf("%v; whole: %t", err, whole(t, state, r))
	}
}

// TestRemoveAnother: a directory that came to stand in the release's place is
// somebody else's.
func TestRemoveAnother(t *testing.T) {
	state, r := removable(t)
	if err := os.Rename(r.Dest, r.Dest+"-moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(r.Dest, "mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Remove(durable.Disk{}, state, r, nil); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(r.Dest, "mine")); err != nil {
		t.Error(err)
	}
	if err := RemoveRemoved(durable.Disk{}, r.Dest); !errors.Is(err, ErrForeign) {
		t.Errorf("a name that is not Remove's: %v", err)
	}
}

func TestGone(t *testing.T) {
	_, r := removable(t)
	if Gone(r) {
		t.Error("it stands there")
	}
	if err := os.Rename(r.Dest, r.Dest+"-moved"); err != nil {
		t.Fatal(err)
	}
	if !Gone(r) {
		t.Error("it is not there")
	}
	stage := filepath.Join(filepath.Dir(r.Dest), stageName(r.Dest))
	if err := os.Mkdir(stage, 0o700); err != nil {
		t.Fatal(err)
	}
	if Gone(r) {
		t.Error("a stage is about to become it")
	}
	os.Remove(stage)
	r.Dev++ // its filesystem is not mounted now
	if Gone(r) {
		t.Error("another filesystem is there")
	}
}
