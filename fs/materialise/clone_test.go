package materialise

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/fs/tree"
)

// reflinks is a directory on a filesystem that has reflinks, made for the test.
func reflinks(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: a filesystem with reflinks has to be mounted")
	}
	mkfs, err := exec.LookPath("mkfs.xfs")
	if err != nil {
		t.Skip("mkfs.xfs is not installed")
	}
	top := t.TempDir()
	image, dir := filepath.Join(top, "image"), filepath.Join(top, "mnt")
	must(t, os.WriteFile(image, nil, 0o600), os.Truncate(image, 400<<20), os.Mkdir(dir, 0o755))
	if out, err := exec.Command(mkfs, "-q", "-m", "reflink=1", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.xfs: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("no loop mounts: %v: %s", err, out)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// twoFiles is a release of two files, and its payload.
func twoFiles(t *testing.T) (dir string, tr *tree.Tree, payload []byte) {
	t.Helper()
	dir = t.TempDir()
	must(t, os.Mkdir(dir+"/sub", 0o755),
		os.WriteFile(dir+"/a", bytes.Repeat([]byte("a1"), 5000), 0o644),
		os.WriteFile(dir+"/sub/b", bytes.Repeat([]byte("b12"), 5000), 0o755),
		os.Chtimes(dir+"/sub/b", time.Unix(1, 2), time.Unix(1, 2)))
	tr, payload = scan(t, dir, testPiece)
	return dir, tr, payload
}

func entryAt(t *testing.T, tr *tree.Tree, path string) tree.ID {
	t.Helper()
	id, ok := tr.Find(path)
	if !ok {
		t.Fatal(path)
	}
	return id
}

func opened(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// TestClone: a file gets another's blocks, if nothing of it is there yet.
func TestClone(t *testing.T) {
	top := reflinks(t)
	dir, tr, payload := twoFiles(t)
	must(t, exec.Command("cp", "-a", dir, top+"/old").Run())
	s := stage(t, top+"/new", tr)
	b := entryAt(t, tr, "sub/b")
	must(t, s.Clone(b, opened(t, top+"/old/sub/b")))
	off, size := tr.Span(b)
	got := make([]byte, size)
	if _, err := s.ReadAt(got, off); err != nil || !bytes.Equal(got, payload[off:off+size]) {
		t.Errorf("the clone reads otherwise: %v", err)
	}
	if err := s.Clone(b, opened(t, top+"/old/sub/b")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	a := entryAt(t, tr, "a")
	if err := s.Clone(a, opened(t, top+"/old/sub/b")); !errors.Is(err, ErrShort) {
		t.Errorf("a file of another size: %v", err)
	}
	if err := s.Clone(a, opened(t, dir+"/a")); !errors.Is(err, ErrNoClone) {
		t.Errorf("from another filesystem: %v", err)
	}
	fill(t, s, payload, testPiece)
	must(t, s.Finish(context.Background(), Completion{State: t.TempDir()}))
	if err := s.Clone(a, opened(t, top+"/old/a")); !errors.Is(err, ErrSealed) {
		t.Errorf("after the end: %v", err)
	}
	sameByRsync(t, dir, top+"/new")
	sameByRsync(t, dir, top+"/old")
	if got := names(t, top); got != "new old" {
		t.Errorf("left behind: %s", got)
	}
}

// TestShare: a file that is the same in every respect becomes one with the old
// one; nothing else does, and the old release stays as it was.
func TestShare(t *testing.T) {
	dir, tr, payload := twoFiles(t)
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, old string)
		ok    bool
	}{
		{"same", func(*testing.T, string) {}, true},
		{"mode", func(t *testing.T, p string) { must(t, os.Chmod(p, 0o700)) }, false},
		{"mtime", func(t *testing.T, p string) { must(t, os.Chtimes(p, time.Unix(1, 3), time.Unix(1, 3))) }, false},
		{"xattr", func(t *testing.T, p string) { must(t, unix.Setxattr(p, "user.x", []byte("y"), 0)) }, false},
		{"content", func(t *testing.T, p string) {
			must(t, os.WriteFile(p, bytes.Repeat([]byte("b13"), 5000), 0o755), os.Chtimes(p, time.Unix(1, 2), time.Unix(1, 2)))
		}, false},
		{"length", func(t *testing.T, p string) {
			must(t, os.Truncate(p, 5), os.Chtimes(p, time.Unix(1, 2), time.Unix(1, 2)))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			must(t, exec.Command("cp", "-a", dir, top+"/old").Run())
			old := top + "/old/sub/b"
			c.spoil(t, old)
			before, err := os.Stat(old)
			must(t, err)
			s := stage(t, top+"/new", tr)
			fill(t, s, payload, testPiece)
			must(t, s.Finish(context.Background(), Completion{State: t.TempDir(), Share: func(context.Context) {
				err = s.Share(entryAt(t, tr, "sub/b"), opened(t, old))
			}}))
			if c.ok != (err == nil) || !c.ok && !errors.Is(err, ErrOther) {
				t.Errorf("error %v", err)
			}
			sameByRsync(t, dir, top+"/new")
			after, err := os.Stat(old)
			must(t, err)
			now, err := os.Stat(top + "/new/sub/b")
			must(t, err)
			if os.SameFile(now, after) != c.ok || after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) {
				t.Errorf("the old file: %v, %v; shared %v", after.Mode(), after.ModTime(), os.SameFile(now, after))
			}
			if got := names(t, top); got != "new old" {
				t.Errorf("left behind: %s", got)
			}
		})
	}
}

// TestShareThenCrash: a stage that was left after sharing gives the shared file
// up before anything can be written to it.
func TestShareThenCrash(t *testing.T) {
	for _, crash := range []bool{true, false} {
		dir, tr, payload := twoFiles(t)
		top := t.TempDir()
		must(t, exec.Command("cp", "-a", dir, top+"/old").Run())
		before, err := os.Stat(top + "/old/sub/b")
		must(t, err)
		s := stage(t, top+"/new", tr)
		fill(t, s, payload, testPiece)
		must(t, s.SaveHave([]byte{0xff}))
		staged := top + "/.new.dcfs/tree/sub/b"
		if crash { // leaves just this
			must(t, s.markShared(0), os.Remove(staged), os.Link(top+"/old/sub/b", staged), s.Close())
			s = stage(t, top+"/new", tr)
		} else {
			ctx, cancel := context.WithCancel(context.Background())
			err := s.Finish(ctx, Completion{State: t.TempDir(), Share: func(context.Context) {
				must(t, s.Share(entryAt(t, tr, "sub/b"), opened(t, top+"/old/sub/b")))
				cancel() // the next step ends
			}})
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("finish: %v", err)
			}
		}
		if _, err := os.Stat(staged); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the shared file is still staged: %v", err)
		}
		fill(t, s, payload, testPiece)
		must(t, s.Finish(context.Background(), Completion{State: t.TempDir()}))
		sameByRsync(t, dir, top+"/new")
		sameByRsync(t, dir, top+"/old")
		after, err := os.Stat(top + "/old/sub/b")
		must(t, err)
		if !after.ModTime().Equal(before.ModTime()) || strings.Contains(names(t, top), "dcfs") {
			t.Errorf("the old file changed, or something is left: %s", names(t, top))
		}
	}
}
