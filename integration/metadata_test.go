package integration

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/integration/lab"
)

var metadataNeeds = []lab.Need{lab.Root, lab.FUSE, lab.Tool("rsync"), lab.Tool("setfattr"), lab.Tool("getfattr"),
	lab.Tool("setfacl"), lab.Tool("getfacl"), lab.Tool("setcap"), lab.Tool("getcap"), lab.Tool("mtree"), lab.Tool("setpriv")}

// TestMetadata brings a tree with everything that POSIX and Linux know through
// publish, origin and node, and has it judged in the mount and in the copy by
// programs that know nothing of dcfs.
func TestMetadata(t *testing.T) {
	lab.Require(t, metadataNeeds...)
	source := tortureTree(t)
	l := lab.New(t, "origin", "a")
	o := newOrigin(t, l.Host("origin"))
	release := o.publish(source, "torture")
	n := o.newNode(l.Host("a"))
	p, mnt, dest := n.mountBeside(o, release)
	openUp(t, n.Dir)
	for name, got := range map[string]string{"mount": mnt, "copy": dest} {
		t.Run(name, func(t *testing.T) {
			equal(t, source, got)
			judges(t, source, got)
			linked(t, got)
			sparse(t, source, got)
			effective(t, got)
			if out := n.ok("verify", release.file, got); !strings.Contains(out, " 0 differences") {
				t.Errorf("verify: %s", out)
			}
		})
	}
	t.Run("flipped", func(t *testing.T) { flipped(t, n, release, dest) })
	stop(t, p)
}

// mountBeside mounts a release until its copy stands, and keeps the mount.
func (n *node) mountBeside(o *origin, release published, more ...string) (p *lab.Process, mnt, dest string) {
	n.t.Helper()
	label := strings.ReplaceAll(release.Version, "/", "_")
	mnt, dest = filepath.Join(n.Mnt(), label), filepath.Join(n.Releases(), label)
	must(n.t, os.Mkdir(mnt, 0o755))
	args := []string{"mount", release.Version, mnt, "--origin", o.url(), "--dest", dest, "--linger", "10m", "--at-end", "unmount"}
	p = n.daemon("mount-"+label, append(args, more...)...)
	n.reach(p, release.Version, "lingering", 60*time.Second)
	return p, mnt, dest
}

func stop(t testing.TB, p *lab.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// tool runs a program in a directory and returns its stdout.
func tool(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q in %s: %v\n%s%s", name, args, dir, err, out, &stderr)
	}
	return string(out)
}

// judges compares two trees by attr, acl, libcap and mtree.
func judges(t *testing.T, want, got string) {
	t.Helper()
	for _, j := range []struct {
		name, separator string
		command         []string
	}{
		{"getfattr", "\n\n", []string{"getfattr", "-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."}},
		{"getfacl", "\n\n", []string{"getfacl", "-R", "-P", "-n", "."}},
		{"getcap", "\n", []string{"getcap", "-r", "."}},
	} {
		var lists [2][]string
		for i, dir := range []string{want, got} {
			lists[i] = strings.Split(strings.TrimSpace(tool(t, dir, j.command[0], j.command[1:]...)), j.separator)
			slices.Sort(lists[i])
		}
		if len(lists[0]) < 2 && j.name != "getcap" || lists[0][0] == "" {
			t.Errorf("%s says nothing of the source: %q", j.name, lists[0])
		}
		if !slices.Equal(lists[0], lists[1]) {
			t.Errorf("%s\nwant %q\n got %q", j.name, lists[0], lists[1])
		}
	}
	// Sizes of directories are matters of the filesystem; nlink of theirs, too.
	spec := tool(t, want, "mtree", "-c", "-p", want, "-k", "type,mode,uid,gid,link,sha256,size,time")
	// What it says of the source itself, it says of all: it trips over
	// directories with a newline and over long links.
	own := mtree(t, spec, want)
	for line := range strings.Lines(mtree(t, spec, got)) {
		if !strings.Contains(own, line) {
			t.Errorf("mtree: %.300s", strings.TrimSpace(line))
		}
	}
	if strings.Count(spec, "sha256=") < 60 || strings.Count(own, "\n") > 8 {
		t.Errorf("mtree does not understand the source: %.2000s", own)
	}
}

// mtree returns in what a directory differs from a specification.
func mtree(t *testing.T, spec, dir string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "mtree", "-p", dir)
	cmd.Stdin, cmd.Dir = strings.NewReader(spec), dir
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatalf("mtree: %v", err)
	}
	return string(out)
}

func linked(t *testing.T, dir string) {
	t.Helper()
	for _, names := range [][]string{{"hard/one/a", "hard/two/b", "a-first-name"}, {"hard/two/x", "hard/one/empty"}} {
		want := lstat(t, filepath.Join(dir, names[0]))
		for _, name := range names[1:] {
			if st := lstat(t, filepath.Join(dir, name)); st.Ino != want.Ino || st.Nlink != uint64(len(names)) {
				t.Errorf("%s: inode %d with %d names, want %d with %d", name, st.Ino, st.Nlink, want.Ino, len(names))
			}
		}
	}
}

func lstat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st
}

// sparse compares how much room files take.
func sparse(t *testing.T, want, got string) {
	t.Helper()
	for _, name := range []string{"all", "start", "middle", "end", "both", "odd-end"} {
		w, g := lstat(t, filepath.Join(want, "sparse", name)), lstat(t, filepath.Join(got, "sparse", name))
		if w.Blocks*512 >= w.Size {
			t.Errorf("sparse/%s has no holes in the source: the test shows nothing", name)
		}
		if g.Blocks > w.Blocks+16 {
			t.Errorf("sparse/%s: %d blocks, %d in the source", name, g.Blocks, w.Blocks)
		}
		if a, b := holesOf(t, filepath.Join(want, "sparse", name)), holesOf(t, filepath.Join(got, "sparse", name)); a != b {
			t.Errorf("sparse/%s: holes %s, want %s", name, b, a)
		}
	}
}

// holesOf lists the data of a file as lseek(2) tells it.
func holesOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	var out []string
	for off := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return strings.Join(out, " ")
		}
		must(t, err)
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		must(t, err)
		out, off = append(out, fmt.Sprintf("%d-%d", data, hole)), hole
	}
}

// effective runs programs from the tree as nobody: a capability and setuid
// have to work, and an ACL has to hold.
func effective(t *testing.T, dir string) {
	t.Helper()
	as := func(uid string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "setpriv",
			append([]string{"--reuid=" + uid, "--regid=" + uid, "--clear-groups", "--"}, args...)...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("for root"), 0o600))
	if out, err := as("65534", filepath.Join(dir, "cap/cat"), secret); err != nil || out != "for root" {
		t.Errorf("cap_dac_read_search has no effect: %v: %s", err, out)
	}
	if out, err := as("65534", filepath.Join(dir, "cap/id")); err != nil || !strings.Contains(out, "euid=4321") || !strings.Contains(out, "egid=4322") {
		t.Errorf("setuid and setgid have no effect: %v: %s", err, out)
	}
	if out, err := as("1234", "/bin/cat", filepath.Join(dir, "acl/file")); err != nil {
		t.Errorf("the ACL lets user 1234 read: %v: %s", err, out)
	}
	if out, err := as("1235", "/bin/cat", filepath.Join(dir, "acl/file")); err == nil {
		t.Errorf("the ACL keeps user 1235 out: %q", out)
	}
}

// flipped changes each kind of metadata on an entry of its own, and verify has
// to name exactly these.
func flipped(t *testing.T, n *node, release published, dest string) {
	in := func(name string) string { return filepath.Join(dest, name) }
	want := map[string]string{}
	// spoil keeps the times of the entry and of its directory, and of those
	// that it names.
	spoil := func(line, name string, do func() error, more ...string) {
		t.Helper()
		var times []func() error
		for _, p := range append(more, name, filepath.Dir(name)) {
			st := lstat(t, in(p))
			times = append(times, func() error {
				at := []unix.Timespec{st.Atim, st.Mtim}
				return unix.UtimesNanoAt(unix.AT_FDCWD, in(p), at, unix.AT_SYMLINK_NOFOLLOW)
			})
		}
		must(t, do())
		for _, restore := range times {
			if err := restore(); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		want[fmt.Sprintf("%s: %q", line, name)] = line
	}
	run := func(args ...string) func() error {
		return func() error { tool(t, dest, args[0], args[1:]...); return nil }
	}
	spoil("mode", "modes/751", run("chmod", "u-w", "modes/751"))
	spoil("mode", "modes/4751", run("chmod", "u-s", "modes/4751"))
	spoil("mode", "modes/2751.d", run("chmod", "g-s", "modes/2751.d"))
	spoil("mode", "modes/1751.d", run("chmod", "-t", "modes/1751.d"))
	spoil("owner", "names/-dash", run("chown", "-h", "1", "names/-dash"))
	spoil("owner", "links/absolute", run("chown", "-h", ":1", "links/absolute"))
	spoil("owner", "empty/dir", run("chown", "1:1", "empty/dir"))
	spoil("target", "links/dangling", run("ln", "-sfn", "no/such/thinG", "links/dangling"))
	must(t, os.Lchown(in("links/dangling"), 1005, 65528)) // as tortureOwners has it
	spoil("xattr", "attr/file", run("setfattr", "-n", "user.text", "-v", "Value", "attr/file"))
	spoil("xattr", "attr/dir", run("setfattr", "-x", "user.text", "attr/dir"))
	spoil("xattr", "attr/link", run("setfattr", "-h", "-n", "trusted.link", "-v", "x", "attr/link"))
	spoil("xattr", "names/case", run("setfattr", "-n", "user.new", "names/case"))
	spoil("xattr", "cap/cat", run("setcap", "-r", "cap/cat"))
	spoil("xattr", "acl/file", run("setfacl", "-n", "-m", "u:1234:r--", "acl/file"))
	spoil("xattr", "acl/dir", run("setfacl", "-k", "acl/dir"))
	spoil("links", "hard/two/b", run("sh", "-c", "cp -a hard/two/b h && mv h hard/two/b"), ".")
	spoil("content", "large/aligned", func() error { return flip(in("large/aligned")) })
	spoil("size", "names/pad", run("truncate", "-s", "+1", "names/pad"))
	spoil("missing", "names/\xff\xfe not utf-8", run("rm", "names/\xff\xfe not utf-8"))
	spoil("type", "empty/file", run("sh", "-c", "rm empty/file && mkfifo empty/file"))
	must(t, os.WriteFile(in("empty/dir/inner/stranger"), nil, 0o600))
	want[`extra: "empty/dir/inner/stranger"`] = "extra"
	// The time of the inner directory has changed with it.
	want[`mtime: "empty/dir/inner"`] = "mtime"
	must(t, os.Chtimes(in(".pad/0"), time.Time{}, time.Unix(0, 1)))
	want[`mtime: ".pad/0"`] = "mtime"
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in("links/long"), []unix.Timespec{{}, {Nsec: 5}}, unix.AT_SYMLINK_NOFOLLOW))
	want[`mtime: "links/long"`] = "mtime"

	r := n.fails(65, []string{"is not the release"}, "verify", release.file, dest)
	named := map[string]bool{}
	for line := range strings.Lines(r.stdout) {
		if end := strings.LastIndex(line, `": want`); end > 0 {
			line = line[:end+1]
		} else if end := strings.LastIndex(line, `" (`); end > 0 {
			line = line[:end+1]
		} else {
			continue // the summary
		}
		named[line] = true
		if want[line] == "" {
			t.Errorf("verify names %s, which nobody touched", line)
		}
	}
	for line := range want {
		if !named[line] {
			t.Errorf("verify does not name %s", line)
		}
	}
	if t.Failed() {
		t.Log(r)
	}
}

// TestUnpublishable: what no release can hold is refused with its path.
func TestUnpublishable(t *testing.T) {
	lab.Require(t, lab.Root)
	l := lab.New(t, "origin")
	o := newOrigin(t, l.Host("origin"))
	for name, make := range map[string]func(string) error{
		"FIFO":   func(p string) error { return unix.Mkfifo(p, 0o644) },
		"device": func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, 1<<8|3) },
		"socket": func(p string) error {
			s, err := net.ListenUnix("unix", &net.UnixAddr{Name: p, Net: "unix"})
			if err == nil {
				s.SetUnlinkOnClose(false)
				err = s.Close()
			}
			return err
		},
	} {
		dir, err := os.MkdirTemp("", "dcfs-unpub-") // short: a socket's path is
		must(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
		must(t, make(filepath.Join(dir, "d", "odd one")))
		o.fails(65, []string{`"d/odd one"`, name, "exclude"}, "publish", dir, "--as", "odd-"+name, "--key", o.key+".key",
			"--origin", o.url(), "--publish-token-file", o.token)
		o.ok("publish", dir, "--as", "odd-"+name, "--key", o.key+".key", "--origin", o.url(), "--publish-token-file", o.token,
			"--exclude", "odd one")
	}
}

// TestOwner: --owner gives everything to one account, in the mount, in the
// copy and before verify; others than root may only name themselves.
func TestOwner(t *testing.T) {
	lab.Require(t, metadataNeeds...)
	l := lab.New(t, "origin", "a", "b")
	o := newOrigin(t, l.Host("origin"))
	source := tortureTree(t)
	release := o.publish(source, "torture", "--exclude", "modes/0") // nobody could verify a file of mode 0
	n := o.newNode(l.Host("a"))
	p, mnt, dest := n.mountBeside(o, release, "--owner", "1000:2000")
	for _, dir := range []string{mnt, dest} {
		if out := tool(t, dir, "find", ".", "!", "(", "-uid", "1000", "-gid", "2000", ")"); out != "" {
			t.Errorf("%s: not given to 1000:2000: %s", dir, out)
		}
		if out := tool(t, dir, "find", ".", "-perm", "/6000"); out != "" {
			t.Errorf("%s: setuid or setgid of somebody else: %s", dir, out)
		}
		if out := tool(t, dir, "getcap", "-r", "."); !strings.Contains(out, "cap_dac_read_search") {
			t.Errorf("%s: the capability is gone: %s", dir, out)
		}
		n.ok("verify", release.file, dir, "--owner", "1000:2000")
		n.fails(65, nil, "verify", release.file, dir)
	}
	// All but modes, owners and times of directories, which the deleted one has changed.
	must(t, os.Remove(filepath.Join(source, "modes/0")))
	if out := tool(t, dest, "rsync", "-rlHXni", "--checksum", "--delete", source+"/", dest+"/"); out != "" {
		t.Errorf("content: %s", out)
	}
	n.fails(64, []string{"--owner"}, "fetch", release.Version, filepath.Join(n.Releases(), "x"), "--origin", o.url(), "--owner", "nobody-here:0")
	stop(t, p)
	t.Run("not root", func(t *testing.T) { ownerOfNobody(t, o, o.newNode(l.Host("b")), release) })
}

// openUp lets everybody search the directories that lead to dir.
func openUp(t *testing.T, dir string) {
	t.Helper()
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if st := lstat(t, dir); st.Mode&0o005 != 0o005 {
			must(t, os.Chmod(dir, 0o755))
		}
	}
}

func ownerOfNobody(t *testing.T, o *origin, n *node, release published) {
	openUp(t, n.Dir)
	for _, dir := range []string{n.State(), n.Run(), n.Releases()} {
		must(t, os.Chown(dir, 65534, 65534))
	}
	nobody := func(args ...string) (string, int) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := n.Command(ctx, "setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", "--", n.bin}, args...)...)
		cmd.Env = n.env()
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	dest := filepath.Join(n.Releases(), "torture")
	fetch := []string{"fetch", release.Version, dest, "--origin", o.url(), "--linger", "0s"}
	if out, code := nobody(append(fetch, "--owner", "0:0")...); code != 77 || !strings.Contains(out, "only root can give files away") {
		t.Errorf("nobody gives to root: exit %d: %s", code, out)
	}
	out, code := nobody(append(fetch, "--owner", "65534:65534")...)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	if out := tool(t, dest, "find", ".", "!", "(", "-uid", "65534", "-gid", "65534", ")"); out != "" {
		t.Errorf("not given to nobody: %s", out)
	}
	if out := tool(t, dest, "find", ".", "-perm", "/6000"); out != "" {
		t.Errorf("setuid or setgid of somebody else: %s", out)
	}
	if out, code := nobody("verify", release.file, dest); code != 0 {
		t.Errorf("verify as nobody: exit %d: %s", code, out)
	}
	must(t, os.RemoveAll(dest))
	// Without --owner, nobody keeps everything, too, and is told so.
	if out, code := nobody(fetch...); code != 0 || !strings.Contains(out, "not root") {
		t.Errorf("exit %d: %s", code, out)
	}
	n.fails(65, []string{"differences"}, "verify", release.file, dest)
}
