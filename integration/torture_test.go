package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// oddNames are names that only bytes can express, or that mean something to a
// shell, to a torrent, or to us.
var oddNames = []string{
	"\xff\xfe not utf-8", "new\nline", "-dash", "--", " lead", "trail ", "two  spaces", "back\\slash", `quo"te'`, "tab\tand\rreturn",
	".torrent", ".hidden", ".x.dcfs", ".pad", "pad", "Case", "case", "CASE", "ünïcode", "u\u0308nicode", "*?[a]", "$(id)", "\x01\x7f", "~", "...",
	strings.Repeat("n", 255), strings.Repeat("\xe2\x82\xac", 85),
}

// tortureTree makes the tree as root. What a filesystem allows in a name, a
// link or an attribute is in it at its limit.
func tortureTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "torture")
	r := rand.NewChaCha8([32]byte{3})
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, mode uint32, size int) {
		b := make([]byte, size)
		r.Read(b)
		must(t, os.MkdirAll(filepath.Dir(in(name)), 0o755))
		must(t, os.WriteFile(in(name), b, 0o600))
		must(t, unix.Chmod(in(name), mode))
	}
	for i, name := range oddNames {
		write("names/"+name, 0o644, i*100)
		write("dirs/"+name+"/0", 0o644, i)
	}
	write(".pad/0", 0o644, 5) // as padding is called in the torrent
	write(".pad/1", 0o644, 300_000)
	write("release.torrent", 0o644, 77)
	for m := range uint32(8) {
		name := fmt.Sprintf("modes/%o", m<<9|0o751)
		write(name, m<<9|0o751, 40)
		must(t, os.Mkdir(in(name+".d"), 0o755))
	}
	write("modes/0", 0, 9)
	write("large/aligned", 0o644, 3<<20+7)
	write("empty/file", 0o444, 0)
	must(t, os.MkdirAll(in("empty/dir/inner"), 0o700))
	tortureLinks(t, in, write)
	tortureHoles(t, in)
	tortureAttributes(t, dir, in, write)
	// Owners first: giving a file away takes its setuid bits and capabilities.
	tortureOwners(t, in)
	for m := range uint32(8) {
		name := in(fmt.Sprintf("modes/%o", m<<9|0o751))
		must(t, unix.Chmod(name, m<<9|0o751))
		must(t, unix.Chmod(name+".d", m<<9|0o751))
	}
	tool(t, dir, "setcap", "cap_dac_read_search=ep", "cap/cat")
	must(t, unix.Chmod(in("cap/id"), 0o6755))
	tortureTimes(t, dir)
	return dir
}

func tortureLinks(t *testing.T, in func(string) string, write func(string, uint32, int)) {
	for name, target := range map[string]string{
		"dangling": "no/such/thing", "absolute": "/etc/passwd", "up": "../../..", "self": "self", "slash": "/", "odd": "\xff\n ",
		"long": strings.Repeat("x/", 2047) + "y", // 4,095 bytes: what the kernel takes
	} {
		must(t, os.MkdirAll(in("links"), 0o755))
		must(t, os.Symlink(target, in("links/"+name)))
	}
	write("hard/one/a", 0o640, 12_345)
	write("hard/two/x", 0o600, 0)
	must(t, os.Link(in("hard/one/a"), in("hard/two/b")))
	must(t, os.Link(in("hard/one/a"), in("a-first-name")))
	must(t, os.Link(in("hard/two/x"), in("hard/one/empty")))
}

// tortureHoles makes files that are sparse in every way.
func tortureHoles(t *testing.T, in func(string) string) {
	must(t, os.MkdirAll(in("sparse"), 0o755))
	for name, data := range map[string][]int64{"all": {}, "start": {15 << 20}, "middle": {0, 15 << 20}, "end": {0}, "both": {7 << 20}} {
		f, err := os.Create(in("sparse/" + name))
		must(t, err)
		must(t, f.Truncate(16<<20))
		for _, off := range data {
			_, err := f.WriteAt(bytes.Repeat([]byte("data"), 1<<16), off)
			must(t, err)
		}
		must(t, f.Close())
	}
	f, err := os.Create(in("sparse/odd-end"))
	must(t, err)
	_, err = f.WriteAt([]byte("x"), 5<<20)
	must(t, err)
	must(t, f.Truncate(9<<20+1))
	must(t, f.Close())
}

func tortureAttributes(t *testing.T, dir string, in func(string) string, write func(string, uint32, int)) {
	write("attr/file", 0o644, 10)
	write("attr/read-only", 0o444, 10)
	must(t, os.MkdirAll(in("attr/dir"), 0o755))
	must(t, os.Symlink("file", in("attr/link")))
	set := func(name, value string, files ...string) {
		tool(t, dir, "setfattr", append([]string{"-h", "-n", name, "-v", value}, files...)...)
	}
	set("user.text", "value", "attr/file", "attr/read-only", "attr/dir", ".")
	set("user.empty", "", "attr/file")
	set("user.binary", "0x00ff0a22", "attr/file")
	set("user.large", "0x"+strings.Repeat("ab", 2000), "attr/read-only")
	set("trusted.link", "on a symlink", "attr/link")
	write("acl/file", 0o640, 10)
	must(t, os.MkdirAll(in("acl/dir"), 0o750))
	tool(t, dir, "setfacl", "-m", "u:1234:rwx,g:99:r--,u:0:r--,m::r-x", "acl/file")
	tool(t, dir, "setfacl", "-m", "u:1234:rwx,d:u:77:r-x,d:g::---,d:o::---", "acl/dir")
	write("acl/dir/inherits", 0o600, 10)
	for _, name := range []string{"cat", "id"} {
		path, err := exec.LookPath(name)
		must(t, err)
		body, err := os.ReadFile(path)
		must(t, err)
		must(t, os.MkdirAll(in("cap"), 0o755))
		must(t, os.WriteFile(in("cap/"+name), body, 0o755))
	}
}

func tortureOwners(t *testing.T, in func(string) string) {
	for i, name := range []string{
		"modes", "modes/751", "names/-dash", "empty/dir", "empty/file", "links/dangling", "links/up", "sparse/all",
		"hard/one/a", "attr/dir", "cap/id", "modes/6751", "modes/2751.d",
	} {
		must(t, os.Lchown(in(name), 1000+i, 65533-i))
	}
	must(t, os.Lchown(in("links/long"), 1<<32-2, 1<<32-2))
	must(t, os.Lchown(in("cap/id"), 4321, 4322))
}

// tortureTimes gives every entry a time of its own: before the epoch, in the
// far future, with all nine digits.
func tortureTimes(t *testing.T, dir string) {
	var paths []string
	must(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		paths = append(paths, p)
		return err
	}))
	seconds := []int64{-1, -1_000_000_000, 0, 1, 1_234_567_890, 2_147_483_648, 4_294_967_296, 7_258_118_400}
	for i, p := range slices.Backward(paths) {
		at := unix.Timespec{Sec: seconds[i%len(seconds)] - int64(i/len(seconds)), Nsec: 123_456_789 + int64(i)}
		if i%7 == 0 {
			at.Nsec = 999_999_999
		}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
	}
}
