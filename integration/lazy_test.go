package integration

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// TestLazy: a lazy mount has what was read and little else, and its copy stands
// once all was read.
func TestLazy(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE)
	l := lab.New(t, "origin", "host")
	o := newOrigin(t, l.Host("origin"))
	dir := sampleTree(t, 50, 12, 3<<20)
	release := o.publish(dir, "app/lazy")
	mnt, p := o.mountTraced(l.Host("host"), release, "--lazy")
	n := o.newNode(l.Host("host"))
	for _, name := range []string{"big/09.bin", "bin/tool"} {
		if _, err := os.ReadFile(filepath.Join(mnt, name)); err != nil {
			t.Fatal(err)
		}
	}
	if s := n.status(release.Version); s.BytesHave == 0 || s.BytesHave >= s.Bytes/2 {
		t.Errorf("after two of many files, %d of %d bytes are here", s.BytesHave, s.Bytes)
	}
	err := filepath.WalkDir(mnt, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			_, err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.WaitLog(ctx, "state=lingering"); err != nil {
		t.Fatal(err)
	}
	stop(t, p)
	sameContent(t, dir, filepath.Join(n.Releases(), "r"))
}
