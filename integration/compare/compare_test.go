package compare

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sample makes a tree with one of each kind.
func sample(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "sub/empty"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "a"), []byte("alpha"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "sub/b"), []byte("beta"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "odd \n name"), nil, 0o600))
	must(t, os.Symlink("../a", filepath.Join(dir, "sub/link")))
	must(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "sub/hard")))
	return dir
}

// copyOf copies with everything that cp knows to keep.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	out, err := exec.Command("cp", "-aT", dir, to).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func need(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("rsync"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("missing under CI: rsync")
		}
		t.Skip("skipped: rsync is not installed; `make deps` installs it")
	}
}

// touchBack changes a file and puts its times back.
func touchBack(t *testing.T, path string, change func()) {
	t.Helper()
	info, err := os.Lstat(path)
	must(t, err)
	change()
	must(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
}

func TestSame(t *testing.T) {
	need(t)
	for _, tc := range []struct {
		name   string
		change func(dir string)
		want   string // in one of the lines; empty for no difference
	}{
		{"equal", func(string) {}, ""},
		{"one byte, same size and time", func(d string) {
			f := filepath.Join(d, "sub/b")
			touchBack(t, f, func() { must(t, os.WriteFile(f, []byte("betA"), 0o755)) })
		}, "sub/b"},
		{"mode", func(d string) { must(t, os.Chmod(filepath.Join(d, "sub/b"), 0o711)) }, "sub/b"},
		{"directory mode", func(d string) { must(t, os.Chmod(filepath.Join(d, "sub"), 0o700)) }, "sub"},
		{"nanoseconds", func(d string) {
			f := filepath.Join(d, "sub/b")
			info, err := os.Stat(f)
			must(t, err)
			must(t, os.Chtimes(f, time.Now(), info.ModTime().Truncate(time.Second).Add(1+
				time.Duration(info.ModTime().Nanosecond())%(time.Second-1))))
		}, "sub/b"},
		{"missing", func(d string) { must(t, os.Remove(filepath.Join(d, "sub/b"))) }, "sub/b"},
		{"extra", func(d string) { must(t, os.WriteFile(filepath.Join(d, "more"), nil, 0o644)) }, "more"},
		{"extra empty directory", func(d string) { must(t, os.Mkdir(filepath.Join(d, "dir"), 0o755)) }, "dir"},
		{"link target", func(d string) {
			l := filepath.Join(d, "sub/link")
			must(t, os.Remove(l))
			must(t, os.Symlink("../b", l))
		}, "sub/link"},
		{"hard link broken", func(d string) {
			f := filepath.Join(d, "sub/hard")
			must(t, os.Remove(f))
			must(t, os.WriteFile(f, []byte("alpha"), 0o644))
		}, "sub/hard"},
		{"owner", func(d string) {
			if os.Geteuid() != 0 {
				t.Skip("skipped: not root")
			}
			must(t, os.Chown(filepath.Join(d, "a"), 12345, 0))
		}, "a"},
		{"xattr", func(d string) {
			if err := unix.Setxattr(filepath.Join(d, "a"), "user.dcfs", []byte("x"), 0); err != nil {
				t.Skip("skipped: no user xattrs here: ", err)
			}
		}, "a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := sample(t)
			got := copyOf(t, want)
			tc.change(got)
			diff, err := Same(t.Context(), want, got)
			must(t, err)
			check(t, diff, tc.want)
		})
	}
}

func TestContent(t *testing.T) {
	need(t)
	want := sample(t)
	got := copyOf(t, want)
	// What another client makes of it: no links, no modes, pad files.
	must(t, os.Chmod(filepath.Join(got, "sub/b"), 0o600))
	must(t, os.Chtimes(filepath.Join(got, "a"), time.Unix(1, 0), time.Unix(1, 0)))
	must(t, os.Remove(filepath.Join(got, "sub/link")))
	must(t, os.Remove(filepath.Join(got, "sub/empty")))
	must(t, os.Mkdir(filepath.Join(got, ".pad"), 0o755))
	must(t, os.WriteFile(filepath.Join(got, ".pad/17"), make([]byte, 17), 0o644))
	diff, err := Content(t.Context(), want, got, "/.pad")
	must(t, err)
	check(t, diff, "")
	diff, err = Content(t.Context(), want, got)
	must(t, err)
	check(t, diff, ".pad/17")

	f := filepath.Join(got, "sub/b")
	touchBack(t, f, func() { must(t, os.WriteFile(f, []byte("bet4"), 0o600)) })
	diff, err = Content(t.Context(), want, got, "/.pad")
	must(t, err)
	check(t, diff, "sub/b")
	must(t, os.Remove(f))
	diff, err = Content(t.Context(), want, got, "/.pad")
	must(t, err)
	check(t, diff, "sub/b")
}

func TestMissingTreeIsAnError(t *testing.T) {
	need(t)
	if diff, err := Same(t.Context(), sample(t), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Errorf("no error; diff %v", diff)
	}
}

func TestReportIsBounded(t *testing.T) {
	if got := bound(make([]string, maxLines+7)); len(got) != maxLines+1 || got[maxLines] != "and 7 more" {
		t.Errorf("%d lines, last %q", len(got), got[len(got)-1])
	}
}

func check(t *testing.T, diff []string, want string) {
	t.Helper()
	if want == "" {
		if len(diff) > 0 {
			t.Errorf("differences:\n%s", strings.Join(diff, "\n"))
		}
		return
	}
	if !strings.Contains(strings.Join(diff, "\n"), want) {
		t.Errorf("no difference names %q: %q", want, diff)
	}
}
