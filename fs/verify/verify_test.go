package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pkg/xattr"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"dcfs/fs/tree"
)

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// release makes a directory and the tree that describes it.
func release(t *testing.T) (string, *tree.Tree) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "rel")
	must(t, os.MkdirAll(dir+"/d/e/deep", 0o755), os.MkdirAll(dir+"/empty", 0o755))
	for i := range 40 {
		must(t, os.WriteFile(fmt.Sprintf("%s/d/e/f%02d", dir, i), []byte(strings.Repeat("x", i*i*10)), 0o644))
	}
	must(t, os.WriteFile(dir+"/a", []byte("content"), 0o644), os.WriteFile(dir+"/b", []byte("content"), 0o644),
		os.WriteFile(dir+"/\xff\n", nil, 0o600), os.WriteFile(dir+"/d/e/deep/leaf", []byte("leaf"), 0o4755), unix.Chmod(dir+"/d/e/deep/leaf", 0o4755),
		os.Symlink("a", dir+"/l"), os.Symlink("/nowhere", dir+"/d/dangling"),
		os.Link(dir+"/a", dir+"/d/hard"), os.Link(dir+"/a", dir+"/d/hard2"),
		touch(dir+"/\xff\n"), xattr.Set(dir+"/b", "user.k", []byte("v")), xattr.Set(dir+"/d", "user.dir", []byte("v")))
	return dir, describe(t, dir)
}

func describe(t *testing.T, dir string) *tree.Tree {
	t.Helper()
	found, err := tree.Scan(context.Background(), dir, tree.ScanOptions{})
	must(t, err)
	for i := range found.Nodes {
		if n := &found.Nodes[i]; n.Kind == tree.File && n.Link == "" {
			b, err := os.ReadFile(filepath.Join(dir, n.Path))
			must(t, err)
			n.Sum = sha256.Sum256(b)
		}
	}
	tr, err := tree.Build(found.Nodes, tree.Plan{})
	must(t, err)
	return tr
}

func compare(t *testing.T, tr *tree.Tree, dir string, opt Options) []Difference {
	t.Helper()
	var out []Difference
	must(t, Compare(context.Background(), tr, dir, opt, func(d Difference) error {
		out = append(out, d)
		return nil
	}))
	return out
}

// keepTime runs do and puts the mtimes of the paths back.
func keepTime(do func() error, paths ...string) error {
	stats := make([]unix.Stat_t, len(paths))
	for i, p := range paths {
		if err := unix.Lstat(p, &stats[i]); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	for i, p := range paths {
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, stats[i].Mtim}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// Each single thing that is wrong is found, once, by its kind and its path,
// and nothing else is.
func TestEveryKindOfDifference(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, c := range []struct {
		name  string
		spoil func(dir string) error
		want  string
		root  bool
	}{
		{"nothing", func(string) error { return nil }, "", false},
		{"byte", func(d string) error { return keepTime(func() error { return flip(d + "/d/e/f07") }, d+"/d/e/f07") }, "content d/e/f07", false},
		{"hardlinked byte", func(d string) error { return keepTime(func() error { return flip(d + "/d/hard") }, d+"/a") }, "content a", false},
		{"size", func(d string) error { return keepTime(func() error { return os.Truncate(d+"/b", 3) }, d+"/b") }, "size b", false},
		{"mode", func(d string) error { return unix.Chmod(d+"/b", 0o645) }, "mode b", false},
		{"setuid", func(d string) error { return unix.Chmod(d+"/d/e/deep/leaf", 0o755) }, "mode d/e/deep/leaf", false},
		{"directory mode", func(d string) error { return unix.Chmod(d+"/empty", 0o1755) }, "mode empty", false},
		{"root mode", func(d string) error { return unix.Chmod(d, 0o700) }, "mode .", false},
		{"owner", func(d string) error { return os.Chown(d+"/b", 1, -1) }, "owner b", true},
		{"group", func(d string) error { return os.Chown(d+"/d", -1, 1) }, "owner d", true},
		{"symlink owner", func(d string) error { return os.Lchown(d+"/l", 1, 1) }, "owner l", true},
		{"mtime", func(d string) error { return touch(d + "/b") }, "mtime b", false},
		{"symlink mtime", func(d string) error { return touch(d + "/l") }, "mtime l", false},
		{"directory mtime", func(d string) error { return touch(d + "/empty") }, "mtime empty", false},
		{"root mtime", func(d string) error { return touch(d) }, "mtime .", false},
		{"missing file", func(d string) error { return keepTime(func() error { return os.Remove(d + "/b") }, d) }, "missing b", false},
		{"missing directory", func(d string) error {
			return keepTime(func() error { return os.RemoveAll(d + "/d/e") }, d+"/d")
		}, "missing d/e", false},
		{"extra file", func(d string) error {
			return keepTime(func() error { return os.WriteFile(d+"/d/e/new", nil, 0o600) }, d+"/d/e")
		}, "extra d/e/new", false},
		{"extra directory", func(d string) error {
			return keepTime(func() error { return os.MkdirAll(d+"/empty/x", 0o755) }, d+"/empty")
		}, "extra empty/x", false},
		{"FIFO in place of a file", func(d string) error { return keepTime(func() error { return replace(d+"/b", mkfifo) }, d) }, "type b", false},
		{"link in place of a directory", func(d string) error { return keepTime(func() error { return replace(d+"/d", link("/")) }, d) }, "type d", false},
		{"link in place of a file", func(d string) error { return keepTime(func() error { return replace(d+"/b", link("a")) }, d) }, "type b", false},
		{"target", func(d string) error { return keepTime(func() error { return replace(d+"/l", link("b")) }, d, d+"/l") }, "target l", false},
		{"links apart", func(d string) error {
			return keepTime(func() error { return errors.Join(os.Remove(d+"/d/hard"), copyFile(d+"/a", d+"/d/hard")) }, d+"/d", d+"/d/hard")
		}, "links d/hard", false},
		{"links together", func(d string) error {
			return keepTime(func() error { return errors.Join(os.Remove(d+"/d/e/f00"), os.Link(d+"/\xff\n", d+"/d/e/f00")) }, d+"/d/e")
		}, "links d/e/f00 mode d/e/f00 mtime d/e/f00", false},
		{"xattr value", func(d string) error { return xattr.Set(d+"/b", "user.k", []byte("w")) }, "xattr b", false},
		{"xattr gone", func(d string) error { return xattr.Remove(d+"/d", "user.dir") }, "xattr d", false},
		{"xattr new", func(d string) error { return xattr.LSet(d, "user.new", nil) }, "xattr .", false},
		{"several", func(d string) error {
			return keepTime(func() error {
				return errors.Join(os.Remove(d+"/b"), os.WriteFile(d+"/z", nil, 0o600), flip(d+"/d/e/f39"))
			}, d, d+"/d/e/f39")
		}, "extra z missing b content d/e/f39", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("SKIPPED: needs root to give a file away")
			}
			dir, tr := release(t)
			must(t, c.spoil(dir))
			for _, parallel := range []int{0, 1, 8} {
				var got []string
				for _, d := range compare(t, tr, dir, Options{Parallel: parallel}) {
					got = append(got, string(d.Kind), d.Path)
					if d.Want == d.Got {
						t.Errorf("%+v says nothing", d)
					}
				}
				if s := strings.Join(got, " "); s != c.want {
					t.Errorf("parallel %d: %q, want %q", parallel, s, c.want)
				}
			}
		})
	}
}

func flip(p string) error {
	b, err := os.ReadFile(p)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Close())
}

func touch(p string) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 5, Nsec: 1}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
}

func replace(p string, with func(string) error) error {
	return errors.Join(os.RemoveAll(p), with(p))
}

func mkfifo(p string) error { return unix.Mkfifo(p, 0o644) }

func link(target string) func(string) error {
	return func(p string) error { return os.Symlink(target, p) }
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// What somebody who is not root could not keep is no difference for them.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root to give files away")
	}
	dir, _ := release(t)
	must(t, xattr.Set(dir+"/b", "trusted.k", []byte("v")))
	tr := describe(t, dir)
	must(t, os.Chown(dir+"/d/e/deep/leaf", 1, 1), xattr.Remove(dir+"/b", "trusted.k"), os.Chown(dir+"/a", 1, 1))
	if got := compare(t, tr, dir, Options{Unprivileged: true}); len(got) > 0 {
		t.Errorf("%v", got)
	}
	var kinds []Kind
	for _, d := range compare(t, tr, dir, Options{}) {
		kinds = append(kinds, d.Kind)
	}
	// The three names of a are one file.
	if want := []Kind{Owner, Xattr, Owner, Mode}; !slices.Equal(kinds, want) {
		t.Errorf("for root: %v, want %v", kinds, want)
	}
	must(t, unix.Chmod(dir+"/d/e/deep/leaf", 0o6755))
	if got := compare(t, tr, dir, Options{Unprivileged: true}); len(got) != 1 || got[0].Kind != Mode {
		t.Errorf("a setgid too many: %v", got)
	}
}

func TestErrorsAndEnds(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir, tr := release(t)
	none := func(Difference) error { return nil }
	if err := Compare(context.Background(), tr, dir+"/none", Options{}, none); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Compare(ctx, tr, dir, Options{}, none); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for i := range 40 {
		must(t, os.Chtimes(fmt.Sprintf("%s/d/e/f%02d", dir, i), time.Time{}, time.Unix(9, 9)))
	}
	enough, calls := errors.New("enough"), 0
	err := Compare(context.Background(), tr, dir, Options{}, func(Difference) error {
		if calls++; calls == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || calls != 3 {
		t.Errorf("stopped by its caller: %v after %d", err, calls)
	}
	ctx, cancel = context.WithCancel(context.Background())
	err = Compare(ctx, tr, dir, Options{}, func(Difference) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled on the way: %v", err)
	}
}

func TestDifferenceText(t *testing.T) {
	for want, d := range map[string]Difference{
		`mode: "a\n": want 0644, got 0600`: {Path: "a\n", Kind: Mode, Want: "0644", Got: "0600"},
		`missing: "a" (file)`:              {Path: "a", Kind: Missing, Want: "file"},
		`extra: "a" (FIFO)`:                {Path: "a", Kind: Extra, Got: "FIFO"},
	} {
		if d.String() != want {
			t.Errorf("%s, want %s", d, want)
		}
	}
}
