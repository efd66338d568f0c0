package materialise

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"dcfs/fs/tree"
)

// What somebody else does to a staged file is found before the release gets its
// name, whoever touched the file last; what we do is not taken for that.
func TestChangedStage(t *testing.T) {
	flip := func(t *testing.T, path string) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		b := make([]byte, 1)
		_, err = f.ReadAt(b, 3)
		must(t, err)
		b[0] ^= 1
		_, err = f.WriteAt(b, 3)
		must(t, err)
	}
	for name, change := range map[string]func(t *testing.T, s *Stage, path string, payload []byte){
		"flipped": func(t *testing.T, _ *Stage, path string, _ []byte) { flip(t, path) },
		"flipped, with its time restored": func(t *testing.T, _ *Stage, path string, _ []byte) {
			fi, err := os.Stat(path)
			must(t, err)
			flip(t, path)
			must(t, os.Chtimes(path, fi.ModTime(), fi.ModTime()))
		},
		"truncated": func(t *testing.T, _ *Stage, path string, _ []byte) { must(t, os.Truncate(path, 5)) },
		"removed":   func(t *testing.T, _ *Stage, path string, _ []byte) { must(t, os.Remove(path)) },
		"replaced": func(t *testing.T, _ *Stage, path string, _ []byte) {
			must(t, os.Rename(path, path+".old"), os.WriteFile(path, make([]byte, 200_000), 0o600))
		},
		"flipped, and written on": func(t *testing.T, s *Stage, path string, payload []byte) {
			flip(t, path)
			fill(t, s, payload, testPiece)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, tr, payload := twoFiles(t)
			top := t.TempDir()
			s := stage(t, top+"/new", tr)
			fill(t, s, payload, testPiece)
			change(t, s, top+"/.new.dcfs/tree/sub/b", payload)
			var found *ChangedError
			err := s.Finish(context.Background(), Completion{State: t.TempDir()})
			if !errors.As(err, &found) || !errors.Is(err, ErrBusy) || !slices.Equal(found.Files, []tree.ID{entryAt(t, tr, "sub/b")}) {
				t.Fatalf("finish: %v", err)
			}
			if _, err := os.Lstat(top + "/new"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("something stands at the destination: %v", err)
			}
			fill(t, s, payload, testPiece)
			must(t, s.Finish(context.Background(), Completion{State: t.TempDir()}))
			sameByRsync(t, dir, top+"/new")
		})
	}
}

// A stage of an earlier process is marked when it is read.
func TestChangedAfterResume(t *testing.T) {
	_, tr, payload := twoFiles(t)
	top := t.TempDir()
	s := stage(t, top+"/new", tr)
	fill(t, s, payload, testPiece)
	must(t, s.SaveHave([]byte{0xff}), s.Close())
	s = stage(t, top+"/new", tr)
	got := make([]byte, len(payload))
	if n, _ := s.ReadAt(got, 0); n != len(payload) {
		t.Fatalf("%d bytes read", n)
	}
	path := top + "/.new.dcfs/tree/sub/b"
	old, err := os.ReadFile(path)
	must(t, err, os.WriteFile(path, append([]byte("!"), old[1:]...), 0o600))
	var found *ChangedError
	if err := s.Finish(context.Background(), Completion{State: t.TempDir()}); !errors.As(err, &found) || len(found.Files) != 1 {
		t.Errorf("finish: %v", err)
	}
}
