package tree

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/xattr"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, p, content string) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(p), 0o755))
	must(t, os.WriteFile(p, []byte(content), 0o644))
	return p
}

func scan(t *testing.T, dir string, exclude ...string) *ScanResult {
	t.Helper()
	r, err := Scan(context.Background(), dir, ScanOptions{Exclude: exclude})
	must(t, err)
	return r
}

func paths(r *ScanResult) (out []string) {
	for _, n := range r.Nodes {
		out = append(out, n.Path)
	}
	return out
}

func get(t *testing.T, r *ScanResult, p string) Node {
	t.Helper()
	for _, n := range r.Nodes {
		if n.Path == p {
			return n
		}
	}
	t.Fatalf("%q was not found", p)
	return Node{}
}

// setXattr skips the test where the filesystem or the caller's rights lack
// this attribute.
func setXattr(t *testing.T, p, name string, value []byte) {
	t.Helper()
	err := xattr.LSet(p, name, value)
	if errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EPERM) {
		t.Skipf("NOT TESTED: %s cannot be set here: %v", name, err)
	}
	must(t, err)
}

func TestScanMetadata(t *testing.T) {
	dir := t.TempDir()
	p := write(t, filepath.Join(dir, "d", "tool"), "hello")
	if os.Geteuid() == 0 {
		must(t, os.Chown(p, 12, 34))
	}
	must(t, unix.Chmod(p, 0o6755))
	must(t, unix.Chmod(filepath.Join(dir, "d"), 0o1777))
	when := time.Unix(-5, 123456789)
	must(t, os.Chtimes(p, when, when))
	must(t, os.Symlink("/nowhere/at all", filepath.Join(dir, "dangling")))
	must(t, os.Symlink("d", filepath.Join(dir, "to-dir")))
	r := scan(t, dir)
	if want := []string{".", "d", "d/tool", "dangling", "to-dir"}; !slices.Equal(paths(r), want) {
		t.Fatalf("paths %q", paths(r))
	}
	n := get(t, r, "d/tool")
	if n.Kind != File || n.Mode != 0o6755 || n.Size != 5 || n.Mtime != when.UnixNano() {
		t.Errorf("%+v", n)
	}
	if os.Geteuid() == 0 && (n.UID != 12 || n.GID != 34) {
		t.Errorf("owner %d:%d", n.UID, n.GID)
	}
	if n := get(t, r, "d"); n.Kind != Dir || n.Mode != 0o1777 || n.Size != 0 {
		t.Errorf("%+v", n)
	}
	if n := get(t, r, "dangling"); n.Kind != Symlink || n.Target != "/nowhere/at all" || n.Size != 15 {
		t.Errorf("%+v", n)
	}
	if n := get(t, r, "."); n.Kind != Dir {
		t.Errorf("%+v", n)
	}
	if _, err := Build(r.Nodes, Plan{}); err != nil {
		t.Error(err)
	}
}

func TestScanHardlinks(t *testing.T) {
	dir := t.TempDir()
	p := write(t, filepath.Join(dir, "m", "x"), "one")
	must(t, os.Link(p, filepath.Join(dir, "z")))
	must(t, os.Link(p, filepath.Join(dir, "a")))
	q := write(t, filepath.Join(dir, "q"), "two")
	must(t, os.Link(q, filepath.Join(t.TempDir(), "outside")))
	r := scan(t, dir)
	for path, link := range map[string]string{"a": "", "m/x": "a", "z": "a", "q": ""} {
		if n := get(t, r, path); n.Link != link || n.Kind != File {
			t.Errorf("%+v", n)
		}
	}
	tr, err := Build(r.Nodes, Plan{})
	must(t, err)
	z, _ := tr.Find("z")
	if e := tr.Entry(z); e.Links != 3 || e.Size != 3 {
		t.Errorf("%+v", e)
	}
	if n := get(t, scan(t, dir, "/a"), "z"); n.Link != "m/x" {
		t.Errorf("without the lowest name: %+v", n)
	}
}

func TestScanXattrs(t *testing.T) {
	dir := t.TempDir()
	p := write(t, filepath.Join(dir, "f"), "x")
	capability := []byte("\x00\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	acl := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x01\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff")
	want := []Xattr{{"security.capability", capability}, {"system.posix_acl_access", acl}, {"user.empty", nil}, {"user.z", []byte("v")}}
	setXattr(t, p, "trusted.overlay.opaque", []byte("y"))
	for _, x := range want {
		setXattr(t, p, x.Name, x.Value)
	}
	setXattr(t, dir, "system.posix_acl_default", acl)
	r := scan(t, dir)
	got := get(t, r, "f").Xattrs
	if !slices.EqualFunc(got, want, func(a, b Xattr) bool { return a.Name == b.Name && string(a.Value) == string(b.Value) }) {
		t.Errorf("xattrs %q", got)
	}
	if top := get(t, r, ".").Xattrs; len(top) != 1 || top[0].Name != "system.posix_acl_default" {
		t.Errorf("xattrs of the top %q", top)
	}
	for name, want := range map[string]bool{
		"security.selinux": false, "security.ima": false, "security.evm": false, "system.nfs4_acl": false,
		"btrfs.compression": false, "trusted.overlay.origin": false, "trusted.md5": true, "user.": true, "users": false,
	} {
		if restorable(name) != want {
			t.Errorf("restorable(%q) is %v", name, !want)
		}
	}
}

func TestScanHoles(t *testing.T) {
	dir := t.TempDir()
	const mib = 1 << 20
	sparse := func(name string, size int64, data ...int64) {
		f, err := os.Create(filepath.Join(dir, name))
		must(t, err)
		defer f.Close()
		must(t, f.Truncate(size))
		for _, off := range data {
			_, err := f.WriteAt(make([]byte, min(mib, size-off)), off)
			must(t, err)
		}
		must(t, f.Sync())
	}
	sparse("all", 3*mib)
	sparse("head", 3*mib, 0)
	sparse("tail", 3*mib, 2*mib)
	sparse("middle", 5*mib, mib, 3*mib)
	sparse("none", mib+5, 0, mib)
	r := scan(t, dir)
	if get(t, r, "all").Holes == nil {
		t.Skip("NOT TESTED: this filesystem keeps no holes")
	}
	for name, want := range map[string][]Hole{
		"all": {{0, 3 * mib}}, "head": {{mib, 2 * mib}}, "tail": {{0, 2 * mib}},
		"middle": {{0, mib}, {2 * mib, mib}, {4 * mib, mib}}, "none": nil,
	} {
		if got := get(t, r, name).Holes; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if _, err := Build(r.Nodes, Plan{}); err != nil {
		t.Error(err)
	}
}

func TestScanExcludes(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"a.o", "src/b.o", "src/b.c", "src/.git/x", ".git/y", "build/out", "src/build/in", "src/x/deep/f"} {
		write(t, filepath.Join(dir, p), "")
	}
	must(t, syscall.Mkfifo(filepath.Join(dir, "src", "x", "pipe"), 0o600))
	got := paths(scan(t, dir, "*.o", ".git", "/build", "src/*/deep/", "pip?"))
	want := []string{".", "src", "src/b.c", "src/build", "src/build/in", "src/x"}
	if !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
	for _, bad := range []string{"[", "", "/"} {
		if _, err := Scan(context.Background(), dir, ScanOptions{Exclude: []string{bad}}); err == nil {
			t.Errorf("the glob %q was taken", bad)
		}
	}
	if got := paths(scan(t, dir, "*")); !slices.Equal(got, []string{"."}) {
		t.Errorf("* left %q", got)
	}
}

func TestScanRefusesSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ok"), "")
	must(t, syscall.Mkfifo(filepath.Join(dir, "b-pipe"), 0o600))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, os.Mkdir(filepath.Join(dir, "a"), 0o755))
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "a", "sock")}))
	_, err = Scan(context.Background(), dir, ScanOptions{})
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), `"a/sock" (socket), 2 in all`) {
		t.Errorf("%v", err)
	}
	_, err = Scan(context.Background(), dir, ScanOptions{Exclude: []string{"a"}})
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), `"b-pipe" (FIFO)`) {
		t.Errorf("%v", err)
	}
}

func TestScanOfTheTop(t *testing.T) {
	dir := t.TempDir()
	p := write(t, filepath.Join(dir, "real", "f"), "")
	link := filepath.Join(dir, "link")
	must(t, os.Symlink("real", link))
	if got := paths(scan(t, link+"/")); !slices.Equal(got, []string{".", "f"}) {
		t.Errorf("through a symlink: %q", got)
	}
	if _, err := Scan(context.Background(), p, ScanOptions{}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
	if _, err := Scan(context.Background(), filepath.Join(dir, "none"), ScanOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Scan(ctx, dir, ScanOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCheckSeesChanges(t *testing.T) {
	dir := t.TempDir()
	p := write(t, filepath.Join(dir, "f"), "12345")
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	r := scan(t, dir)
	check := func(rel string) error {
		info, err := os.Lstat(filepath.Join(dir, rel))
		must(t, err)
		return r.Check(rel, info)
	}
	for _, rel := range []string{".", "d", "f"} {
		if err := check(rel); err != nil {
			t.Error(err)
		}
	}
	f, err := os.Open(p)
	must(t, err)
	defer f.Close()
	_, err = io.ReadAll(f)
	must(t, err)
	if err := check("f"); err != nil {
		t.Errorf("after a read: %v", err)
	}
	before := get(t, r, "f").Mtime
	write(t, p, "54321")
	must(t, os.Chtimes(p, time.Unix(0, before), time.Unix(0, before)))
	if err := check("f"); !errors.Is(err, ErrChanged) {
		t.Errorf("same size and mtime: %v", err)
	}
	write(t, filepath.Join(dir, "d", "new"), "")
	if err := check("d"); !errors.Is(err, ErrChanged) {
		t.Errorf("a new entry: %v", err)
	}
	if err := check("d/new"); !errors.Is(err, ErrChanged) {
		t.Errorf("the new entry: %v", err)
	}
}

// The order in which the walk meets entries leaves no trace.
func TestScanIsReproducible(t *testing.T) {
	dir := t.TempDir()
	for i := range 300 {
		write(t, filepath.Join(dir, string(rune('a'+i%26)), strings.Repeat("n", i%7+1), strings.Repeat("f", i%11+1)), strings.Repeat("x", i))
	}
	one, two := scan(t, dir), scan(t, dir)
	a, err := Build(one.Nodes, Plan{})
	must(t, err)
	b, err := Build(two.Nodes, Plan{})
	must(t, err)
	if string(Encode(a)) != string(Encode(b)) {
		t.Error("two scans give two encodings")
	}
}
