package integration

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"dcfs/integration/delta"
	"dcfs/swarm/metainfo"
)

// deltaResult is what a host did.
type deltaResult struct {
	delta.Least
	release, fetched, reused int64
}

// measureDelta publishes a release and the next, lets a host fetch the first
// and then the second, and compares the copy with what was published.
func measureDelta(t *testing.T, c delta.Case) deltaResult {
	t.Helper()
	h := newDeltaHost(t)
	dir := filepath.Join(h.dir, "source")
	must(t, os.Mkdir(dir, 0o755))
	must(t, c.Tree(dir))
	h.publish(dir, "old")
	changes, err := c.Change(dir)
	must(t, err)
	least, err := delta.Of(h.publish(dir, "new"), changes)
	must(t, err)
	h.serve()
	h.fetch("old", filepath.Join(h.dir, "dest", "old"))
	f := h.fetch("new", filepath.Join(h.dir, "dest", "new"))
	h.run("host", "verify", filepath.Join(h.dir, "new.torrent"), filepath.Join(h.dir, "dest", "new"))
	sameContent(t, dir, filepath.Join(h.dir, "dest", "new"))
	h.run("host", "verify", filepath.Join(h.dir, "old.torrent"), filepath.Join(h.dir, "dest", "old"))
	return deltaResult{least, f.Bytes, f.Fetched, f.Reused}
}

// sameContent compares two directories file by file.
func sameContent(t *testing.T, want, got string) {
	t.Helper()
	must(t, filepath.WalkDir(want, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(want, path)
		a, errA := os.ReadFile(path)
		b, errB := os.ReadFile(filepath.Join(got, rel))
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs", rel)
		}
		return nil
	}))
}

// TestDelta: a host that has the release before fetches what changed, and
// little more.
func TestDelta(t *testing.T) {
	for _, c := range delta.Cases {
		t.Run(c.Name, func(t *testing.T) {
			r := measureDelta(t, c)
			t.Logf("release %d, changed %d, in pieces of %d: %d, fetched %d, reused %d",
				r.release, r.Bytes, r.PieceLength, r.Pieces, r.fetched, r.reused)
			if float64(r.fetched) > c.Limit*float64(r.Pieces) {
				t.Errorf("fetched %d bytes for %d in changed pieces: more than %.1f of it", r.fetched, r.Pieces, c.Limit)
			}
			if r.fetched+r.reused < r.release {
				t.Errorf("fetched %d and reused %d of %d: where is the rest from?", r.fetched, r.reused, r.release)
			}
		})
	}
}

// TestDeltaFlags: a directory without a receipt is good for as much, and with
// --reuse-hardlinks what did not change is one file in both releases.
func TestDeltaFlags(t *testing.T) {
	h := newDeltaHost(t)
	dir := filepath.Join(h.dir, "source")
	must(t, os.Mkdir(dir, 0o755))
	must(t, delta.BigFile(dir))
	old := filepath.Join(t.TempDir(), "old")
	if out, err := exec.Command("cp", "-a", dir, old).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.publish(dir, "old")
	must(t, os.WriteFile(filepath.Join(dir, "z05"), []byte("changed"), 0o644))
	next, err := metainfo.Parse(h.publish(dir, "new"))
	must(t, err)
	h.serve()

	plain := filepath.Join(h.dir, "plain")
	f := h.fetch("new", plain, "--reuse", old, "--reuse", filepath.Join(h.dir, "nothing-here"))
	if f.Fetched > next.Layout.Length || f.Reused < f.Bytes-next.Layout.Length {
		t.Errorf("fetched %d, reused %d of %d", f.Fetched, f.Reused, f.Bytes)
	}
	sameContent(t, dir, plain)
	if sameInode(t, filepath.Join(old, "model.bin"), filepath.Join(plain, "model.bin")) {
		t.Error("hardlinked without being asked for")
	}

	h.fetch("old", filepath.Join(h.dir, "dest", "old"))
	linked := filepath.Join(h.dir, "dest", "new")
	h.fetch("new", linked, "--reuse-hardlinks")
	sameContent(t, dir, linked)
	shares := func(name string) bool {
		return sameInode(t, filepath.Join(linked, name), filepath.Join(plain, name)) ||
			sameInode(t, filepath.Join(linked, name), filepath.Join(h.dir, "dest", "old", name))
	}
	for _, name := range []string{"model.bin", "z00", "z19"} {
		if !shares(name) {
			t.Errorf("%s is not shared", name)
		}
	}
	if sameInode(t, filepath.Join(linked, "z05"), filepath.Join(h.dir, "dest", "old", "z05")) {
		t.Error("what changed is shared")
	}
	for dest, version := range map[string]string{linked: "new", plain: "new", filepath.Join(h.dir, "dest", "old"): "old"} {
		h.run("host", "verify", filepath.Join(h.dir, version+".torrent"), dest)
	}
}

func sameInode(t *testing.T, a, b string) bool {
	t.Helper()
	x, errA := os.Stat(a)
	y, errB := os.Stat(b)
	must(t, errors.Join(errA, errB))
	return os.SameFile(x, y)
}
