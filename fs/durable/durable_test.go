package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// recorder writes down calls with paths below dir, and lets call number fail
// fail (from 1; 0 for none).
type recorder struct {
	dir  string
	fail int

	mu  sync.Mutex
	log []string
}

var errInjected = errors.New("injected")

func (r *recorder) disk() Disk {
	return Disk{Before: func(op, path string) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		p := strings.TrimPrefix(strings.TrimPrefix(path, r.dir), "/")
		if i := strings.Index(p, ".tmp-"); i >= 0 {
			p = p[:i+5] + "…"
		}
		r.log = append(r.log, strings.TrimSpace(op+" "+p))
		if len(r.log) == r.fail {
			return errInjected
		}
		return nil
	}}
}

// Each function makes exactly the calls that stand above it; with each of them
// failing once, the old state or the new is there, and nothing beside it.
func TestCallsAndFailures(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(k Disk, dir string) error
		calls []string
	}{
		{"WriteFile", func(k Disk, dir string) error { return k.WriteFile(dir+"/f", []byte("new"), 0o640) },
			[]string{"create .f.tmp-…", "fchmod .f.tmp-…", "write .f.tmp-…", "fsync .f.tmp-…", "rename f", "fsync"}},
		{"ReplaceSymlink", func(k Disk, dir string) error { return k.ReplaceSymlink("new", dir+"/l") },
			[]string{"symlink .l.swap", "exchange l", "fsync"}},
		{"WriteRecord", func(k Disk, dir string) error { return k.WriteRecord(dir+"/r", []byte("new"), 0o640) },
			[]string{"write r", "fsync r", "fsync"}},
		{"Rename", func(k Disk, dir string) error { return k.Rename(dir+"/a/x", dir+"/b/y") },
			[]string{"rename b/y", "fsync b", "fsync a"}},
		{"MkdirAll", func(k Disk, dir string) error { return k.MkdirAll(dir+"/a/n/m", 0o755) },
			[]string{"mkdir a/n", "fsync a", "mkdir a/n/m", "fsync a/n"}},
		{"RemoveAll", func(k Disk, dir string) error { return k.RemoveAll(dir + "/a") },
			[]string{"unlink a/x", "rmdir a", "fsync"}},
		{"SyncFS", func(k Disk, dir string) error { return k.SyncFS(dir) }, []string{"syncfs"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &recorder{dir: prepared(t)}
			if err := c.do(r.disk(), r.dir); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(r.log, c.calls) {
				t.Errorf("calls\n  %s\nwant\n  %s", strings.Join(r.log, "\n  "), strings.Join(c.calls, "\n  "))
			}
			for i := range c.calls {
				r := &recorder{dir: prepared(t), fail: i + 1}
				if err := c.do(r.disk(), r.dir); !errors.Is(err, errInjected) {
					t.Errorf("failing %q: %v", c.calls[i], err)
				}
				checkState(t, r.dir, c.calls[i])
			}
		})
	}
}

func prepared(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, err := range []error{
		os.WriteFile(dir+"/f", []byte("old"), 0o600), os.Symlink("old", dir+"/l"),
		Disk{}.WriteRecord(dir+"/r", []byte("old"), 0o600), os.Mkdir(dir+"/a", 0o700), os.Mkdir(dir+"/b", 0o700), os.WriteFile(dir+"/a/x", nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func checkState(t *testing.T, dir, failed string) {
	t.Helper()
	if b, err := os.ReadFile(dir + "/f"); string(b) != "old" && string(b) != "new" {
		t.Errorf("after failing %q: file %q, %v", failed, b, err)
	}
	if l, err := os.Readlink(dir + "/l"); l != "old" && l != "new" {
		t.Errorf("after failing %q: link %q, %v", failed, l, err)
	}
	if b, err := (Disk{}).ReadRecord(dir + "/r"); string(b) != "old" && string(b) != "new" {
		t.Errorf("after failing %q: record %q, %v", failed, b, err)
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if to, _ := os.Readlink(dir + "/.l.swap"); e.Name() == ".l.swap" && to == "old" {
			continue // the way back
		}
		if !slices.Contains([]string{"f", "l", "a", "b", "r"}, e.Name()) {
			t.Errorf("after failing %q: %s is left", failed, e.Name())
		}
	}
}

func TestWriteFileSetsModeWhateverUmask(t *testing.T) {
	dir := t.TempDir()
	for _, perm := range []os.FileMode{0o600, 0o666, 0o4755 & os.ModePerm} {
		if err := (Disk{}).WriteFile(dir+"/f", []byte("x"), perm); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(dir + "/f"); err != nil || fi.Mode() != perm {
			t.Errorf("mode %v, want %v (%v)", fi.Mode(), perm, err)
		}
	}
}

func TestReplaceSymlinkAfterCrash(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("stale", dir+"/.l.swap"); err != nil {
		t.Fatal(err)
	}
	if err := (Disk{}).ReplaceSymlink("to", dir+"/l"); err != nil {
		t.Fatal(err)
	}
	if to, _ := os.Readlink(dir + "/l"); to != "to" {
		t.Errorf("it leads to %q", to)
	}
	if _, err := os.Lstat(dir + "/.l.swap"); !os.IsNotExist(err) {
		t.Error("the stale link is left")
	}
}

// TestReplaceSymlinkThereAndBack: the two links change places, as they are, and
// going back makes no new one. What is no symlink is replaced for good, and so is a
// link where the filesystem cannot exchange.
func TestReplaceSymlinkThereAndBack(t *testing.T) {
	dir := prepared(t)
	leads := func(name, want string) {
		t.Helper()
		if to, _ := os.Readlink(dir + "/" + name); to != want {
			t.Errorf("%s leads to %q, want %q", name, to, want)
		}
	}
	r := &recorder{dir: dir}
	for _, step := range []struct{ to, l, beside string }{{"new", "new", "old"}, {dir + "/old", "old", "new"}, {"new", "new", "old"}} {
		if err := r.disk().ReplaceSymlink(step.to, dir+"/l"); err != nil {
			t.Fatal(err)
		}
		leads("l", step.l)
		leads(".l.swap", step.beside)
	}
	if want := []string{"symlink .l.swap", "exchange l", "fsync", "exchange l", "fsync", "exchange l", "fsync"}; !slices.Equal(r.log, want) {
		t.Errorf("calls %q, want %q", r.log, want)
	}
	noExchange := Disk{Before: func(op, _ string) error {
		if op == "exchange" {
			return unix.EINVAL
		}
		return nil
	}}
	for name, k := range map[string]Disk{"f": {}, "l": noExchange} {
		if err := k.ReplaceSymlink("other", dir+"/"+name); err != nil {
			t.Fatal(err)
		}
		leads(name, "other")
		leads("."+name+".swap", "")
	}
}

func TestDirFollowsNothing(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	if err := os.WriteFile(out+"/secret", []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"dir": out, "file": out + "/secret", "dangling": out + "/new"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Disk{}.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for what, err := range map[string]error{
		"sub":    second(d.Sub("dir")),
		"open":   second(d.Open("file", os.O_RDWR, 0)),
		"create": second(d.Open("dangling", os.O_RDWR|os.O_CREATE, 0o600)),
		"chmod":  d.Chmod("file", 0o777),
		"up":     second(d.Sub("..")),
		"path":   second(d.Open("dir/secret", os.O_RDONLY, 0)),
		"rename": d.Rename("../x", d, "y"),
		"xattr":  d.SetXattr("file", "user.x", []byte("1")),
	} {
		if err == nil {
			t.Errorf("%s went through", what)
		}
	}
	if err := d.RemoveAll("dir"); err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(out + "/secret"); err != nil || fi.Mode() != 0o600 {
		t.Errorf("outside: %v, %v", fi, err)
	}
	if _, err := os.Stat(out + "/new"); err == nil {
		t.Error("a file was created outside")
	}
}

func second[T any](_ T, err error) error { return err }

func TestMtimeBeforeTheEpoch(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Disk{}.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, ns := range []int64{-1, -1_000_000_000, -1_500_000_001, 0, 1, 1_700_000_000_123_456_789} {
		if err := d.SetMtime("f", ns); err != nil {
			t.Fatal(err)
		}
		if st, err := d.Lstat("f"); err != nil || st.Mtim.Nano() != ns {
			t.Errorf("mtime %d, want %d (%v)", st.Mtim.Nano(), ns, err)
		}
	}
}

func TestLock(t *testing.T) {
	path := t.TempDir() + "/lock"
	l, err := Disk{}.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Disk{}.Lock(path)
	if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", os.Getpid())) {
		t.Errorf("a held lock: %v", err)
	}
	if err := errors.Join(l.Release(), l.Release()); err != nil {
		t.Fatal(err)
	}
	again, err := Disk{}.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Release(); err != nil {
		t.Fatal(err)
	}
}

// A lock on a file that was removed and made anew is worth nothing: many who
// lock, remove and release never hold it at the same time.
func TestLockOfARemovedFile(t *testing.T) {
	dir := t.TempDir()
	var held, got sync.Mutex
	count := 0
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				l, err := Disk{}.Lock(dir + "/lock")
				if err != nil {
					continue
				}
				if !held.TryLock() {
					t.Error("two hold the lock")
					return
				}
				got.Lock()
				count++
				got.Unlock()
				held.Unlock()
				_ = os.Remove(dir + "/lock")
				_ = l.Release()
			}
		})
	}
	all.Wait()
	if count == 0 {
		t.Error("nobody ever had it")
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(dir+"/real", 0o700), os.Symlink("real", dir+"/link"), os.Symlink("nowhere", dir+"/real/last")); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"/link/x": "/real/x", "/link/missing/x": "/real/missing/x", "/real/last": "/real/last",
		"/link": "/link", "/link/../y": "/y", "/none/a/b": "/none/a/b",
	} {
		if got, err := Resolve(dir + in); err != nil || got != dir+want {
			t.Errorf("Resolve(%s) = %s, %v, want %s", in, strings.TrimPrefix(got, dir), err, want)
		}
	}
	if got, err := Resolve("/"); err != nil || got != "/" {
		t.Errorf("Resolve(/) = %q, %v", got, err)
	}
}

func TestErrorsNameThePath(t *testing.T) {
	dir := t.TempDir()
	err := Disk{}.Rename(dir+"/none", dir+"/x")
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v", err)
	}
}

func TestIsTemporary(t *testing.T) {
	for name, want := range map[string]bool{
		".a.json.tmp-0123abcd": true, ".x.tmp-tmp-00000000": false, ".a.tmp-1.tmp-00000000": true,
		"a.tmp-00000000": false, ".tmp-00000000": false, ".a.tmp-0": false, ".a.tmp-0123456g": false, ".a": false,
	} {
		if IsTemporary(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
	dir := t.TempDir()
	broken := Disk{Before: func(op, path string) error {
		if op == "rename" || op == "unlink" {
			panic("killed")
		}
		return nil
	}}
	func() {
		defer func() { recover() }()
		broken.WriteFile(filepath.Join(dir, "a"), []byte("x"), 0o644)
	}()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || !IsTemporary(left[0].Name()) {
		t.Errorf("what a killed WriteFile leaves: %v, %v", left, err)
	}
}
