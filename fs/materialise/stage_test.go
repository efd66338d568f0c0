package materialise

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

const testPiece = 64 << 10

var hash = [20]byte{1, 2, 3}

// The seam of the cache.
var _ interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
} = (*Stage)(nil)

func stage(t testing.TB, dest string, tr *tree.Tree) *Stage {
	t.Helper()
	s, err := OpenStage(StageConfig{Dest: dest, Tree: tr, InfoHash: hash})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

// The whole way: filled in disorder, finished, equal to the source for rsync,
// read on, sparse as the source, and nothing left beside it.
func TestTorture(t *testing.T) {
	src := torture(t)
	tr, payload := scan(t, src, testPiece)
	base, state := t.TempDir(), t.TempDir()
	dest := base + "/new/parent/release"
	s := stage(t, dest, tr)
	fill(t, s, payload, testPiece)
	if got := names(t, filepath.Dir(dest)); got != ".release.dcfs" {
		t.Errorf("before the end there is %q", got)
	}
	must(t, s.Finish(context.Background(), Completion{State: state, Version: "app/1"}))
	if got := names(t, filepath.Dir(dest)); got != "release" {
		t.Errorf("after the end there is %q", got)
	}
	sameByRsync(t, src, dest)
	if s.Losses() != (Losses{}) && os.Geteuid() == 0 {
		t.Errorf("losses %+v", s.Losses())
	}
	got := make([]byte, len(payload))
	if n, err := s.ReadAt(got, 0); n != len(payload) || err != nil || !bytes.Equal(got, payload) {
		t.Errorf("after Finish the stage reads %d, %v", n, err)
	}
	if _, err := s.WriteAt([]byte("x"), 0); !errors.Is(err, ErrSealed) {
		t.Errorf("a late write: %v", err)
	}
	must(t, s.Finish(context.Background(), Completion{State: state}), s.Close(), s.Close())
	sameBlocks(t, src, dest)
	if ok, err := Complete(state, dest, hash); !ok || err != nil {
		t.Errorf("complete: %v, %v", ok, err)
	}
	d, err := OpenDest(dest, tr)
	must(t, err)
	defer d.Close()
	if n, err := d.ReadAt(got, 0); n != len(payload) || err != nil || !bytes.Equal(got, payload) {
		t.Errorf("the destination reads %d, %v", n, err)
	}
	if _, err := d.WriteAt(got, 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a write to the destination: %v", err)
	}
}

func sameBlocks(t *testing.T, src, dest string) {
	t.Helper()
	for _, f := range []string{"hole-start", "hole-mid", "hole-end", "hole-all"} {
		var a, b unix.Stat_t
		must(t, unix.Stat(src+"/"+f, &a), unix.Stat(dest+"/"+f, &b))
		if b.Blocks > a.Blocks {
			t.Errorf("%s takes %d blocks, at the source %d", f, b.Blocks, a.Blocks)
		}
	}
}

// Garbage from an unverified write must not stay in a hole.
func TestHoleIsCleaned(t *testing.T) {
	tr, err := tree.Build([]tree.Node{{Path: "f", Kind: tree.File, Size: 1 << 20, Holes: []tree.Hole{{Offset: 4096, Length: 1<<20 - 4096}}}}, tree.Plan{})
	must(t, err)
	s := stage(t, t.TempDir()+"/d", tr)
	want := append(bytes.Repeat([]byte{1}, 4096), make([]byte, 1<<20-4096)...)
	for _, p := range [][]byte{bytes.Repeat([]byte{9}, 1<<20), want} {
		_, err := s.WriteAt(p, 0)
		must(t, err)
	}
	got := make([]byte, 1<<20)
	if _, err := s.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the hole does not read as zeros: %v", err)
	}
}

// What was never written is an error and not zeros; bounds are kept.
func TestReadOfNothing(t *testing.T) {
	tr, payload := scan(t, small(t), tree.MinPieceLength)
	s := stage(t, t.TempDir()+"/d", tr)
	p := make([]byte, 10)
	if _, err := s.ReadAt(p, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("never written: %v", err)
	}
	_, err := s.WriteAt(payload[:4], 0)
	must(t, err)
	if _, err := s.ReadAt(p, 0); !errors.Is(err, ErrShort) || !strings.Contains(err.Error(), "tree/") {
		t.Errorf("short: %v", err)
	}
	if _, err := s.ReadAt(p, -1); err == nil {
		t.Error("a negative offset went through")
	}
	if n, err := s.ReadAt(p, tr.Total()); n != 0 || err != io.EOF {
		t.Errorf("past the end: %d, %v", n, err)
	}
	if n, err := s.WriteAt(p, tr.Total()); n != 0 || err == nil {
		t.Errorf("write past the end: %d, %v", n, err)
	}
	if err := s.Finish(context.Background(), Completion{State: t.TempDir()}); !errors.Is(err, ErrShort) {
		t.Errorf("finish: %v", err)
	}
	fill(t, s, payload, tree.MinPieceLength) // a failed Finish takes writes again
	must(t, s.Finish(context.Background(), Completion{State: t.TempDir()}))
}

// small makes a directory with one of each thing, quick to stage.
func small(t testing.TB) string {
	t.Helper()
	src := filepath.Join(t.TempDir(), "src")
	must(t, os.MkdirAll(src+"/d/e", 0o755), os.WriteFile(src+"/d/f", []byte("content of f"), 0o640),
		os.WriteFile(src+"/d/e/empty", nil, 0o600), os.WriteFile(src+"/x", []byte("#!/bin/sh\n"), 0o755),
		os.Link(src+"/d/f", src+"/h"), os.Symlink("d/f", src+"/l"), unix.Chmod(src+"/d", 0o2555))
	return src
}

func TestForeignContentIsLeftAlone(t *testing.T) {
	tr, payload := scan(t, small(t), tree.MinPieceLength)
	state := t.TempDir()
	for name, make := range map[string]func(string) error{
		"directory": func(p string) error { return errors.Join(os.Mkdir(p, 0o755), os.WriteFile(p+"/mine", nil, 0o600)) },
		"file":      func(p string) error { return os.WriteFile(p, []byte("mine"), 0o600) },
		"symlink":   func(p string) error { return os.Symlink("/tmp", p) },
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			must(t, make(parent+"/d"))
			if _, err := OpenStage(StageConfig{Dest: parent + "/d", Tree: tr, InfoHash: hash}); !errors.Is(err, ErrForeign) {
				t.Errorf("open: %v", err)
			}
			if got := names(t, parent); got != "d" {
				t.Errorf("left beside it: %q", got)
			}
			late := t.TempDir()
			s := stage(t, late+"/d", tr)
			fill(t, s, payload, tree.MinPieceLength)
			must(t, make(late+"/d"))
			if err := s.Finish(context.Background(), Completion{State: state}); !errors.Is(err, ErrForeign) {
				t.Errorf("finish: %v", err)
			}
			if ok, _ := Complete(state, late+"/d", hash); ok {
				t.Error("foreign content counts as complete")
			}
			must(t, os.RemoveAll(late+"/d"), os.Mkdir(late+"/d", 0o700)) // an empty directory is fine
			must(t, s.Finish(context.Background(), Completion{State: state}))
		})
	}
}

func TestBusy(t *testing.T) {
	tr, _ := scan(t, small(t), tree.MinPieceLength)
	parent := t.TempDir()
	s := stage(t, parent+"/d", tr)
	_, err := OpenStage(StageConfig{Dest: parent + "/d", Tree: tr, InfoHash: hash})
	if !errors.Is(err, ErrBusy) || !errors.Is(err, durable.ErrHeld) {
		t.Errorf("open: %v", err)
	}
	if err := RemoveStage(parent + "/d"); !errors.Is(err, ErrBusy) {
		t.Errorf("remove: %v", err)
	}
	must(t, s.Discard(), s.Discard(), s.Close())
	if got := names(t, parent); got != "" {
		t.Errorf("left: %q", got)
	}
	must(t, stage(t, parent+"/d", tr).Close(), RemoveStage(parent+"/d"), RemoveStage(parent+"/d"), RemoveStage(parent+"/none/d"))
	if got := names(t, parent); got != "" {
		t.Errorf("left: %q", got)
	}
}

func TestResume(t *testing.T) {
	src := small(t)
	tr, payload := scan(t, src, tree.MinPieceLength)
	parent := t.TempDir()
	cfg := StageConfig{Dest: parent + "/d", Tree: tr, InfoHash: hash}
	have := parent + "/.d.dcfs/have"
	for name, c := range map[string]struct {
		spoil func() error
		kept  bool
	}{
		"as it was":       {func() error { return nil }, true},
		"other info-hash": {func() error { cfg.InfoHash[0]++; return nil }, false},
		"flipped":         {func() error { return patch(have, 40, 0xff) }, false},
		"bad magic":       {func() error { return patch(have, 0, 'x') }, false},
		"truncated":       {func() error { return os.Truncate(have, 20) }, false},
		"empty":           {func() error { return os.Truncate(have, 0) }, false},
		"missing":         {func() error { return os.Remove(have) }, false},
		"a directory":     {func() error { return errors.Join(os.Remove(have), os.Mkdir(have, 0o700)) }, false},
		"a link":          {func() error { return errors.Join(os.Remove(have), os.Symlink("tree/d/f", have)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.InfoHash = hash
			must(t, RemoveStage(cfg.Dest))
			s, err := OpenStage(cfg)
			must(t, err)
			_, err = s.WriteAt(payload, 0)
			must(t, err, s.SaveHave([]byte{0xa5, 0x80}), s.Close(), c.spoil())
			s, err = OpenStage(cfg)
			must(t, err)
			defer s.Close()
			bits, ok := s.LoadHave()
			if ok != c.kept || ok && !bytes.Equal(bits, []byte{0xa5, 0x80}) {
				t.Errorf("have: %x, %v", bits, ok)
			}
			_, err = s.ReadAt(make([]byte, len(payload)), 0)
			if (err == nil) != c.kept {
				t.Errorf("content: %v", err)
			}
		})
	}
}

func patch(path string, at int64, b byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{b}, at)
	return errors.Join(err, f.Close())
}

// Whatever is planted in the stage meanwhile, nothing is written outside of
// it and Finish does not let it through.
func TestPlantedLinks(t *testing.T) {
	tr, payload := scan(t, small(t), tree.MinPieceLength)
	for name, plant := range map[string]func(staged, out string) error{
		"dir":  func(in, out string) error { return errors.Join(os.RemoveAll(in+"/d"), os.Symlink(out, in+"/d")) },
		"file": func(in, out string) error { return os.Symlink(out+"/secret", in+"/x") },
		"new":  func(in, out string) error { return os.Symlink(out+"/created", in+"/h") },
		"swapped": func(in, out string) error {
			return errors.Join(os.Rename(in+"/d", in+"/away"), os.Mkdir(in+"/d", 0o700))
		},
		"fifo": func(in, out string) error { return unix.Mkfifo(in+"/x", 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			parent, out := t.TempDir(), t.TempDir()
			must(t, os.WriteFile(out+"/secret", []byte("s"), 0o600))
			for _, warm := range []bool{false, true} {
				s := stage(t, parent+"/d", tr)
				if warm {
					_, err := s.WriteAt(payload[:len(payload)/2], 0)
					must(t, err)
					must(t, os.RemoveAll(parent+"/.d.dcfs/tree/x"), os.RemoveAll(parent+"/.d.dcfs/tree/h"))
				}
				must(t, plant(parent+"/.d.dcfs/tree", out))
				_, werr := s.WriteAt(payload, 0)
				if err := s.Finish(context.Background(), Completion{State: t.TempDir()}); err == nil {
					t.Errorf("it was finished (write: %v)", werr)
				}
				must(t, s.Discard(), s.Close())
			}
			if b, err := os.ReadFile(out + "/secret"); string(b) != "s" || names(t, out) != "secret" || err != nil {
				t.Errorf("outside: %q, %s, %v", b, names(t, out), err)
			}
		})
	}
}

// Entries that are not of the release do not get into it.
func TestStrangersAreRemoved(t *testing.T) {
	src := small(t)
	tr, payload := scan(t, src, tree.MinPieceLength)
	dest := t.TempDir() + "/d"
	s := stage(t, dest, tr)
	fill(t, s, payload, tree.MinPieceLength)
	must(t, os.MkdirAll(s.Path()+"/d/stranger/x", 0o700), os.WriteFile(s.Path()+"/d/f", []byte("in the place of a link"), 0o600),
		os.Symlink("elsewhere", s.Path()+"/l"))
	must(t, s.Finish(context.Background(), Completion{State: t.TempDir()}))
	sameByRsync(t, src, dest)
}
