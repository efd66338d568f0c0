package materialise

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestShareTwins: files that are equal in every respect and two in the release
// stay two, though the older release has one inode for both.
func TestShareTwins(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"/a", "/b"} {
		must(t, os.WriteFile(dir+name, bytes.Repeat([]byte("twin"), 1000), 0o644),
			os.Chtimes(dir+name, time.Unix(1, 2), time.Unix(1, 2)))
	}
	tr, payload := scan(t, dir, testPiece)
	top := t.TempDir()
	must(t, os.Mkdir(top+"/old", 0o755), exec.Command("cp", "-a", dir+"/a", top+"/old/a").Run())
	s := stage(t, top+"/new", tr)
	fill(t, s, payload, testPiece)
	var first, second error
	must(t, s.Finish(context.Background(), Completion{State: t.TempDir(), Share: func(context.Context) {
		first = s.Share(entryAt(t, tr, "a"), opened(t, top+"/old/a"))
		second = s.Share(entryAt(t, tr, "b"), opened(t, top+"/old/a"))
	}}))
	if first != nil || !errors.Is(second, ErrOther) {
		t.Errorf("first: %v; second: %v", first, second)
	}
	sameByRsync(t, dir, top+"/new")
}

// TestShareStaysSealed: when what is shared cannot be taken out of the stage
// after a failure, nothing is written to it: it would change the old release.
func TestShareStaysSealed(t *testing.T) {
	dir, tr, payload := twoFiles(t)
	top := t.TempDir()
	must(t, exec.Command("cp", "-a", dir, top+"/old").Run())
	s := stage(t, top+"/new", tr)
	fill(t, s, payload, testPiece)
	sub := top + "/.new.dcfs/tree/sub"
	t.Cleanup(func() { _ = exec.Command("chattr", "-i", sub).Run() })
	ctx, cancel := context.WithCancel(context.Background())
	frozen := true
	err := s.Finish(ctx, Completion{State: t.TempDir(), Share: func(context.Context) {
		must(t, s.Share(entryAt(t, tr, "sub/b"), opened(t, top+"/old/sub/b")))
		frozen = exec.Command("chattr", "+i", sub).Run() == nil
		cancel() // the next step ends
	}})
	if !frozen {
		t.Skip("no chattr +i here: it needs root and a filesystem that has it")
	}
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("finish: %v", err)
	}
	off, _ := tr.Span(entryAt(t, tr, "sub/b"))
	if _, err := s.WriteAt([]byte("spoilt"), off); !errors.Is(err, ErrSealed) {
		t.Errorf("write: %v", err)
	}
	sameByRsync(t, dir, top+"/old")
	must(t, exec.Command("chattr", "-i", sub).Run(),
		s.Finish(context.Background(), Completion{State: t.TempDir()}))
	sameByRsync(t, dir, top+"/new")
}
