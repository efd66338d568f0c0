package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// troubleLab is a life whose copy goes to a small filesystem of its own. The
// release is larger than what memory holds.
type troubleLab struct {
	*lifeLab
	top              string // where the small filesystem is mounted
	mountpoint, dest string
}

func newTroubleLab(t *testing.T, top string) *troubleLab {
	l := &troubleLab{lifeLab: newLifeLab(t, 10, 3<<20), top: top}
	l.mountpoint, _ = l.paths(t)
	l.dest = filepath.Join(top, "life")
	return l
}

// begin mounts the release, 30 MB of it, and returns when a part of it came;
// the rest comes slowly.
func (l *troubleLab) begin(t *testing.T, more ...string) *lab.Process {
	t.Helper()
	l.n.Shape(lab.Shape{Down: "48mbit"})
	p := l.n.daemon("mount", l.args(more...)...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := lab.Poll(ctx, func() (bool, error) {
		s := l.n.status(l.release.Version)
		if !p.Running() || stateRank[s.State] > stateRank["mounted"] {
			return false, errors.New("too late: " + s.State)
		}
		return s.Bytes > 0 && s.BytesHave > s.Bytes/3, nil
	})
	if err != nil {
		t.Fatalf("waiting for a part: %v\n%s", err, p.Tail(40))
	}
	return p
}

func (l *troubleLab) args(more ...string) []string {
	return append([]string{"mount", l.release.Version, l.mountpoint, "--origin", l.o.url(), "--dest", l.dest,
		"--linger", "10m", "--at-end", "unmount", "--cache", "16MiB"}, more...)
}

// said waits until the process says each of the words.
func (l *troubleLab) said(t *testing.T, p *lab.Process, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, w := range words {
		if err := p.WaitLog(ctx, w); err != nil {
			t.Fatalf("it does not say %q: %v\n%s", w, err, p.Tail(40))
		}
	}
}

// readsOn reads the whole mount and compares it with the source.
func (l *troubleLab) readsOn(t *testing.T) {
	t.Helper()
	l.onHost(t, 15*time.Second, "diff", "-r", "--no-dereference", l.source, l.mountpoint)
}

// gaveUp waits for the end with 74, which names the destination, and looks
// that nothing stands there.
func (l *troubleLab) gaveUp(t *testing.T, p *lab.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if code, err := p.Wait(ctx); code != 74 || err != nil {
		t.Errorf("it ends with %d, %v; want 74\n%s", code, err, p.Tail(40))
	}
	if tail := p.Tail(5); !strings.Contains(tail, l.dest) || !strings.Contains(tail, "start again to resume") {
		t.Errorf("its last words are\n%s", tail)
	}
	if _, err := os.Lstat(l.dest); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something stands under the final name: %v", err)
	}
	if left := l.n.MountsBelow(l.n.Dir); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
}

// resumes starts the same again and has it end well.
func (l *troubleLab) resumes(t *testing.T) {
	t.Helper()
	l.n.Shape(lab.Shape{})
	p := l.n.daemon("again", l.args()...)
	l.n.reach(p, l.release.Version, "lingering", time.Minute)
	equal(t, l.source, l.dest)
	l.stop(t, p)
}

// fillUp takes all the room that the filesystem has, until free is called.
func fillUp(t *testing.T, top string) (free func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(top, "filler"))
	must(t, err)
	defer f.Close()
	b := make([]byte, 64<<10)
	for len(b) > 0 {
		if _, err := f.Write(b); err != nil {
			b = b[:len(b)/2]
		}
	}
	return func() { must(t, os.Remove(f.Name())) }
}

// TestDiskFull: while the disk is full, every read of the mount is served, from
// memory and peers; when there is room again, the release is finished without
// further ado, and if that takes too long, the end is 74 and a start resumes.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Root)
	for _, recovers := range []bool{true, false} {
		t.Run(map[bool]string{true: "recovers", false: "stays"}[recovers], func(t *testing.T) {
			top := onFilesystem(t, "tmpfs", "none", "-o", "size=48m")
			l := newTroubleLab(t, top)
			patience := map[bool]string{true: "5m", false: "2s"}[recovers]
			p := l.begin(t, "--disk-patience", patience)
			free := fillUp(t, top)
			l.n.Shape(lab.Shape{})
			l.said(t, p, "the disk refuses", top, "no space left on device")
			if !recovers {
				l.gaveUp(t, p)
				free()
				l.resumes(t)
				return
			}
			l.readsOn(t)
			if s := l.n.status(l.release.Version); stateRank[s.State] >= stateRank["materialised"] {
				t.Errorf("on a full disk it says %s", s.State)
			}
			if _, err := os.Lstat(l.dest); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("something stands under the final name: %v", err)
			}
			free()
			l.n.reach(p, l.release.Version, "lingering", time.Minute)
			equal(t, l.source, l.dest)
			equal(t, l.source, l.mountpoint)
			l.stop(t, p)
		})
	}
}

// TestDiskReadOnly: ext4 finds an error and turns read-only, as with a dying
// disk. The mount is served on; the end is 74; after fsck a start resumes.
func TestDiskReadOnly(t *testing.T) {
	lab.Require(t, lab.Root, lab.Tool("mkfs.ext4"), lab.Tool("e2fsck"))
	image := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 96<<20))
	tool(t, "/", "mkfs.ext4", "-q", image)
	top := onFilesystem(t, "ext4", image, "-o", "loop,errors=remount-ro")
	l := newTroubleLab(t, top)
	p := l.begin(t, "--disk-patience", "9s")
	device := strings.TrimSpace(tool(t, "/", "findmnt", "-no", "SOURCE", top))
	if !strings.HasPrefix(device, "/dev/loop") {
		t.Fatalf("%s is mounted from %s", top, device)
	}
	must(t, os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(device), "trigger_fs_error"), []byte("1"), 0o200))
	if err := os.WriteFile(filepath.Join(top, "x"), nil, 0o644); err == nil {
		t.Fatal("the filesystem still takes writes")
	}
	l.n.Shape(lab.Shape{})
	l.said(t, p, "the disk refuses", "read-only file system")
	l.readsOn(t)
	l.gaveUp(t, p)

	tool(t, "/", "umount", top)
	tool(t, "/", "sh", "-c", `e2fsck -fy "$1"; test $? -le 1`, "fsck", image)
	tool(t, "/", "mount", "-t", "ext4", "-o", "loop", image, top)
	l.resumes(t)
	if log := l.o.proc.Tail(100); strings.Contains(log, "is banned") { // it declines what it is offered
		t.Errorf("the origin bans a host whose disk refuses:\n%s", log)
	}
}

// TestDiskDamage: staged files are changed under a running node: one bit in
// every piece of one, another cut off, a third removed. Nobody gets a wrong
// byte, neither programs nor peers; what was damaged comes again from peers,
// and the copy is right.
func TestDiskDamage(t *testing.T) {
	top := onFilesystem(t, "tmpfs", "none", "-o", "size=80m")
	l := newTroubleLab(t, top)
	p := l.begin(t, "--peer-listen", l.n.Addr+":7072")
	staged := wholeFiles(t, filepath.Join(top, ".life.dcfs/tree/big"), 3<<20, 3)
	flipEvery(t, staged[0], 64<<10)
	must(t, os.Truncate(staged[1], 100_000))
	must(t, os.Remove(staged[2]))
	other := l.o.newNode(l.Add("other"))
	copied := filepath.Join(other.Releases(), "life")
	l.n.Shape(lab.Shape{})
	// The other takes what the damaged host has from it, and the rest from the
	// origin.
	other.ok("fetch", l.release.Version, copied, "--origin", l.o.url(), "--peer", l.n.Addr+":7072", "--linger", "0s")
	equal(t, l.source, copied)
	equal(t, l.source, l.mountpoint)
	l.said(t, p, "damaged", "big/"+filepath.Base(staged[0]))
	l.n.reach(p, l.release.Version, "lingering", time.Minute)
	equal(t, l.source, l.dest)

	// A finished copy is never written to, whatever is done to it.
	flipEvery(t, filepath.Join(l.dest, "big/05.bin"), 64<<10)
	l.stop(t, p)
	if r := l.n.fails(65, nil, "verify", l.release.Version, l.dest); !strings.Contains(r.stdout, "big/05.bin") {
		t.Errorf("the damage to the copy is not named: %v", r)
	}
}

// wholeFiles waits for n files of the size below dir.
func wholeFiles(t *testing.T, dir string, size int64, n int) (found []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := lab.Poll(ctx, func() (bool, error) {
		found = nil
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if fi, err := e.Info(); err == nil && fi.Size() == size {
				found = append(found, filepath.Join(dir, e.Name()))
			}
		}
		return len(found) >= n, err
	})
	if err != nil {
		t.Fatalf("%d of %d files are staged in %s: %v", len(found), n, dir, err)
	}
	return found
}

// flipEvery flips one bit in each stretch of a file, in place, and sets its
// times back.
func flipEvery(t *testing.T, path string, stretch int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	fi, err := f.Stat()
	must(t, err)
	b := make([]byte, 1)
	for off := stretch / 2; off < fi.Size(); off += stretch {
		_, err := f.ReadAt(b, off)
		must(t, err)
		b[0] ^= 4
		_, err = f.WriteAt(b, off)
		must(t, err)
	}
	must(t, os.Chtimes(path, fi.ModTime(), fi.ModTime()))
}
