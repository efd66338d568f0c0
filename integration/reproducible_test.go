package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// publishInto publishes into a store of the node's own, as on the origin's
// host, in an environment of its own.
func (o *origin) publishInto(state, dir, version string, env []string, more ...string) (result, published) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), 2*time.Minute)
	defer cancel()
	file := filepath.Join(o.t.TempDir(), "out.torrent")
	args := append([]string{"publish", dir, "--as", version, "--key", o.key + ".key", "--state", state, "--out", file, "--json"}, more...)
	cmd := o.Command(ctx, "sh", append([]string{"-c", `umask "${UMASK:-022}"; exec "$@"`, "sh", o.bin}, args...)...)
	cmd.Env = append(o.env(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		o.t.Fatal(err)
	}
	r := result{args, stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	p := published{file: file}
	if r.code == 0 {
		must(o.t, json.Unmarshal(stdout.Bytes(), &p))
	}
	return r, p
}

// TestReproducible publishes one tree as two machines would have it: another
// directory on another filesystem, made in another order, under another umask,
// locale and time zone.
func TestReproducible(t *testing.T) {
	lab.Require(t, append(metadataNeeds, lab.Tool("tar"))...)
	l := lab.New(t, "origin")
	o := newOrigin(t, l.Host("origin"))
	here := tortureTree(t)
	there := filepath.Join(onFilesystem(t, "tmpfs", "none", "-o", "size=256m"), "elsewhere", "under another name")
	must(t, os.MkdirAll(there, 0o700))
	list := strings.Split(strings.TrimSuffix(tool(t, here, "find", ".", "-print0"), "\x00"), "\x00")
	slices.Reverse(list)
	copyWithTar(t, here, there, list)
	equal(t, here, there)

	_, first := o.publishInto(filepath.Join(o.Dir, "s1"), here, "app/1", nil)
	r, second := o.publishInto(filepath.Join(o.Dir, "s2"), there, "app/1",
		[]string{"UMASK=077", "LC_ALL=tr_TR.UTF-8", "LANG=C", "TZ=Pacific/Kiritimati", "GOMAXPROCS=1"})
	if first.Infohash == "" || first.Infohash != second.Infohash {
		t.Errorf("infohash %q here, %q there\n%v", first.Infohash, second.Infohash, r)
	}
	// The same again, into the store that has it: nothing changes.
	if r, again := o.publishInto(filepath.Join(o.Dir, "s1"), there, "app/1", nil); r.code != 0 || again.Changed {
		t.Errorf("published again from elsewhere: %v", r)
	}
	// It can fail: one bit of metadata is another release.
	must(t, os.Chmod(filepath.Join(there, "names/pad"), 0o640))
	if _, other := o.publishInto(filepath.Join(o.Dir, "s3"), there, "app/1", nil); other.Infohash == first.Infohash {
		t.Error("another mode gives the same infohash")
	}
}

// onFilesystem mounts one for the test.
func onFilesystem(t *testing.T, kind, device string, options ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), kind)
	must(t, os.Mkdir(dir, 0o755))
	tool(t, "/", "mount", append([]string{"-t", kind, device, dir}, options...)...)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

// copyWithTar makes the entries in the order of the list.
func copyWithTar(t *testing.T, from, to string, list []string) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "tar")
	cmd := exec.Command("tar", "--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "-S", "--no-recursion",
		"--null", "--verbatim-files-from", "-T", "-", "-cf", archive)
	cmd.Dir, cmd.Stdin = from, strings.NewReader(strings.Join(list, "\x00"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	tool(t, to, "tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--same-owner", "-S", "-xpf", archive)
}

// TestSnapshot: after publish, DIR is nobody's business any more.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Root, lab.Tool("rsync"))
	l := lab.New(t, "origin", "a", "b")
	o := newOrigin(t, l.Host("origin"))
	for i, c := range []struct {
		name string
		host *lab.Host
		do   func(dir, version string) published
	}{
		{"over HTTP", l.Host("a"), func(dir, version string) published { return o.publish(dir, version) }},
		{"on the origin's host", l.Host("b"), func(dir, version string) published {
			r, p := o.publishInto(o.State(), dir, version, nil)
			if r.code != 0 {
				t.Fatal(r)
			}
			return p
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := sampleTree(t, 60, 4, 3<<20)
			kept := filepath.Join(t.TempDir(), "kept")
			tool(t, "/", "cp", "-a", dir, kept)
			version := "v" + strconv.Itoa(i)
			release := c.do(dir, version)
			n := o.newNode(c.host)
			n.Shape(lab.Shape{Down: "40mbit"})
			dest := filepath.Join(n.Releases(), version)
			p := n.daemon("fetch", "fetch", release.Version, dest, "--origin", o.url(), "--linger", "0s")
			must(t, flip(filepath.Join(dir, "big/00.bin")))
			must(t, os.Truncate(filepath.Join(dir, "big/01.bin"), 5))
			must(t, os.WriteFile(filepath.Join(dir, "big/02.bin"), []byte("longer or shorter"), 0o600))
			must(t, os.RemoveAll(filepath.Join(dir, "lib")))
			must(t, os.Rename(dir, dir+".gone"))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if code, err := p.Wait(ctx); err != nil || code != 0 {
				t.Fatalf("exit %d, %v\n%s", code, err, p.Tail(40))
			}
			equal(t, kept, dest)
		})
	}
}

// reflinkFilesystem mounts a filesystem that can clone, on a file.
func reflinkFilesystem(t *testing.T, kind string, mkfs ...string) string {
	t.Helper()
	lab.Require(t, lab.Root, lab.Tool(mkfs[0]))
	if kinds, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(kinds), "\t"+kind+"\n") {
		t.Skipf("skipped: this kernel has no %s: %v", kind, err)
	}
	image := filepath.Join(t.TempDir(), kind+".img")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 512<<20))
	tool(t, "/", mkfs[0], append(mkfs[1:], image)...)
	return onFilesystem(t, kind, image, "-o", "loop")
}

var reflinking = map[string][]string{
	"xfs":   {"mkfs.xfs", "-q", "-m", "reflink=1"},
	"btrfs": {"mkfs.btrfs", "-q"},
}

// TestReflink: where the filesystem can, publishing copies nothing.
func TestReflink(t *testing.T) {
	for kind, mkfs := range reflinking {
		t.Run(kind, func(t *testing.T) {
			top := reflinkFilesystem(t, kind, mkfs...)
			l := lab.New(t, "origin")
			o := newOrigin(t, l.Host("origin"))
			dir, state := filepath.Join(top, "dir"), filepath.Join(top, "state")
			tool(t, "/", "cp", "-a", sampleTree(t, 40, 3, 24<<20), dir)
			kept := filepath.Join(t.TempDir(), "kept")
			tool(t, "/", "cp", "-a", dir, kept)
			before := used(t, top)
			r, release := o.publishInto(state, dir, "v", nil)
			if r.code != 0 || !strings.Contains(r.stderr, "cloned") {
				t.Fatal(r)
			}
			if more := used(t, top) - before; more > 16<<20 {
				t.Errorf("publishing 72 MiB takes %d bytes more of the disk", more)
			}
			// The clone is ours: what becomes of the source does not change it.
			must(t, flip(filepath.Join(dir, "big/00.bin")))
			must(t, os.RemoveAll(filepath.Join(dir, "lib")))
			equal(t, kept, filepath.Join(state, "origin/v/data"))
			o.ok("verify", release.file, filepath.Join(state, "origin/v/data"))
			_, copied := o.publishInto(filepath.Join(o.Dir, "copied"), kept, "v", nil)
			if copied.Infohash != release.Infohash {
				t.Errorf("infohash %s of the clone, %s of the copy", release.Infohash, copied.Infohash)
			}
		})
	}
}

// used is how many bytes of a filesystem are taken, after all is written.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	tool(t, dir, "sync", "-f", dir)
	out := strings.Fields(tool(t, dir, "df", "-B1", "--output=used", dir))
	n, err := strconv.ParseInt(out[len(out)-1], 10, 64)
	must(t, err)
	return n
}

// TestChangedWhileRead: a file that changes fails the publish, by its name, and
// nothing is left; when nothing writes any more it works.
func TestChangedWhileRead(t *testing.T) {
	lab.Require(t, lab.Root, lab.Tool("mkfs.xfs"))
	l := lab.New(t, "origin")
	o := newOrigin(t, l.Host("origin"))
	xfs := reflinkFilesystem(t, "xfs", reflinking["xfs"]...)
	for name, c := range map[string]struct{ dir, state string }{
		"copied": {filepath.Join(t.TempDir(), "d"), filepath.Join(o.Dir, "copied")},
		"cloned": {filepath.Join(xfs, "d"), filepath.Join(xfs, "s")},
		"HTTP":   {filepath.Join(t.TempDir(), "d"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			tool(t, "/", "cp", "-a", sampleTree(t, 500, 2, 16<<20), c.dir)
			publish := func(version string) result {
				if c.state != "" {
					r, _ := o.publishInto(c.state, c.dir, version, nil)
					return r
				}
				return o.dcfs("publish", c.dir, "--as", version, "--key", o.key+".key", "--origin", o.url(), "--publish-token-file", o.token)
			}
			end := keepChanging(t, filepath.Join(c.dir, "big/01.bin"))
			r := publish("v-" + name)
			end()
			if r.code != 75 || !strings.Contains(r.stderr, `"big/01.bin"`) || !strings.Contains(r.stderr, "changed while it was read") {
				t.Errorf("want exit 75 and the name: %v", r)
			}
			store := filepath.Join(c.state, "origin")
			if c.state == "" {
				store = filepath.Join(o.State(), "origin")
			}
			if out := tool(t, "/", "find", store, "-type", "f", "!", "-name", ".lock"); out != "" {
				t.Errorf("left behind: %s", out)
			}
			if r := publish("v-" + name); r.code != 0 {
				t.Errorf("nobody writes any more: %v", r)
			}
		})
	}
}

// keepChanging rewrites a byte of a file again and again; its size and, mostly,
// its content stay what they were. The call that it returns ends it.
func keepChanging(t *testing.T, path string) func() {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := byte(0); ; i++ {
			select {
			case <-stop:
				return
			default:
				f.WriteAt([]byte{i}, 12345)
			}
		}
	}()
	return func() { close(stop); <-done; f.Close() }
}

// layout is what libtorrent reads of a torrent.
type layout struct {
	PieceLength int64 `json:"piece_length"`
	Files       []struct {
		Path   string `json:"path"`
		Offset int64  `json:"offset"`
		Size   int64  `json:"size"`
		Pad    bool   `json:"pad"`
	} `json:"files"`
	Pieces []string `json:"pieces"`
}

func layoutOf(t *testing.T, torrent string) (out layout) {
	t.Helper()
	const script = `
import json, sys, libtorrent as lt
ti = lt.torrent_info(sys.argv[1]); fs = ti.files()
json.dump({"piece_length": ti.piece_length(),
  "files": [{"path": fs.file_path(i).split("/", 1)[1], "offset": fs.file_offset(i), "size": fs.file_size(i),
             "pad": bool(fs.file_flags(i) & lt.file_storage.flag_pad_file)} for i in range(fs.num_files())],
  "pieces": [ti.hash_for_piece(i).hex() for i in range(ti.num_pieces())]}, sys.stdout)`
	must(t, json.Unmarshal([]byte(tool(t, "/", "/usr/bin/python3", "-c", script, torrent)), &out))
	return out
}

// TestLayout: a trace of a real mount puts files first; large files are on
// piece boundaries, small ones packed by directory; and what does not change
// keeps its pieces.
func TestLayout(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE, lab.Works("python3-libtorrent", "/usr/bin/python3", "-c", "import libtorrent"))
	l := lab.New(t, "origin", "a")
	o := newOrigin(t, l.Host("origin"))
	dir := layoutTree(t)
	first := o.publish(dir, "v1", "--piece-length", "64KiB")
	trace, hot := recordTrace(t, o, o.newNode(l.Host("a")), first)
	second := o.publish(dir, "v2", "--piece-length", "64KiB", "--trace", trace)
	got := layoutOf(t, second.file)
	var order []string
	for _, f := range got.Files {
		if !f.Pad {
			order = append(order, f.Path)
		}
	}
	if !slices.Equal(order[:len(hot)], hot) {
		t.Errorf("the torrent starts with %q, the trace with %q", order[:len(hot)], hot)
	}
	checkLayout(t, got, len(hot))

	must(t, flip(filepath.Join(dir, "d1/small-05")))
	must(t, flip(filepath.Join(dir, "d2/large-1")))
	third := o.publish(dir, "v3", "--piece-length", "64KiB", "--trace", trace)
	next := layoutOf(t, third.file)
	same := equalPieces(got, next)
	t.Logf("one byte each of a small and of a large file: %d of %d pieces stay", same, len(next.Pieces))
	if len(next.Pieces) != len(got.Pieces) || same != len(got.Pieces)-2 {
		t.Errorf("%d of %d pieces are equal in place, want all but 2", same, len(got.Pieces))
	}

	appendTo(t, filepath.Join(dir, "d1/small-05"), 999)
	appendTo(t, filepath.Join(dir, "d2/large-1"), 70_000)
	fourth := o.publish(dir, "v4", "--piece-length", "64KiB", "--trace", trace)
	grown := layoutOf(t, fourth.file)
	kept := 0
	for _, h := range grown.Pieces {
		if slices.Contains(next.Pieces, h) {
			kept++
		}
	}
	t.Logf("both grown, by 999 and by 70000 bytes: %d of %d pieces stay", kept, len(grown.Pieces))
	// Packed small files behind the grown one move; all large files stay.
	for _, f := range grown.Files {
		if f.Size < 4*grown.PieceLength || f.Pad || f.Path == "d2/large-1" {
			continue
		}
		for i := f.Offset / grown.PieceLength; i < (f.Offset+f.Size)/grown.PieceLength; i++ {
			if !slices.Contains(next.Pieces, grown.Pieces[i]) {
				t.Errorf("piece %d of %s, which did not change, is another", i, f.Path)
			}
		}
	}
}

func appendTo(t *testing.T, path string, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.Write(bytes.Repeat([]byte("more"), n)[:n])
	must(t, err)
	must(t, f.Close())
}

func layoutTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	r := rand.NewChaCha8([32]byte{9})
	for d := range 4 {
		must(t, os.MkdirAll(filepath.Join(dir, fmt.Sprintf("d%d", d)), 0o755))
		for i := range 20 {
			b := make([]byte, 3000+i*777)
			name := fmt.Sprintf("d%d/small-%02d", d, i)
			if i%10 == 1 {
				b, name = make([]byte, 1<<20+d*1000+i), fmt.Sprintf("d%d/large-%d", d, i)
			}
			r.Read(b)
			must(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
		}
	}
	return dir
}

// recordTrace reads some files of a mount and returns the trace and their
// names, in order.
func recordTrace(t *testing.T, o *origin, n *node, release published) (trace string, hot []string) {
	t.Helper()
	trace = filepath.Join(n.Dir, "trace")
	hot = []string{"d3/small-19", "d0/small-00", "d2/large-11", "d1/small-07"}
	mnt := filepath.Join(n.Mnt(), "v1")
	must(t, os.Mkdir(mnt, 0o755))
	p := n.daemon("mount", "mount", release.Version, mnt, "--origin", o.url(), "--dest", filepath.Join(n.Releases(), "v1"),
		"--linger", "10m", "--at-end", "unmount", "--trace-out", trace)
	n.reach(p, release.Version, "mounted", 30*time.Second)
	for _, name := range hot {
		_, err := os.ReadFile(filepath.Join(mnt, name))
		must(t, err)
	}
	n.reach(p, release.Version, "lingering", 60*time.Second)
	stop(t, p)
	return trace, hot
}

func checkLayout(t *testing.T, got layout, hot int) {
	t.Helper()
	var dirs []string
	at := int64(0)
	for i, f := range got.Files {
		if f.Offset != at {
			t.Errorf("%s starts at %d, want %d", f.Path, f.Offset, at)
		}
		at += f.Size
		large := f.Size >= 4*got.PieceLength
		switch {
		case f.Pad:
			if next := got.Files[i+1]; next.Size < 4*got.PieceLength {
				t.Errorf("padding before the small %s: small files are to be packed", next.Path)
			}
			continue
		case large && f.Offset%got.PieceLength != 0:
			t.Errorf("the large %s starts at %d, in the middle of a piece", f.Path, f.Offset)
		}
		if i > hot+1 { // the large one among the hot has padding before it
			dirs = append(dirs, filepath.Dir(f.Path))
		}
	}
	if dirs = slices.Compact(dirs); !slices.IsSorted(dirs) || len(dirs) != 4 {
		t.Errorf("the rest is not grouped by directory: %v", dirs)
	}
}

func equalPieces(a, b layout) int {
	n := 0
	for i := range min(len(a.Pieces), len(b.Pieces)) {
		if a.Pieces[i] == b.Pieces[i] {
			n++
		}
	}
	return n
}
