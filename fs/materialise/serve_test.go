package materialise

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dcfs/fs/tree"
)

// While the stage still serves reads, programs of the release can be executed.
func TestExecutableAtOnce(t *testing.T) {
	binary, err := os.ReadFile("/bin/true")
	must(t, err)
	src := t.TempDir()
	must(t, os.WriteFile(src+"/true", append(binary, make([]byte, 2*largeFile)...), 0o755))
	tr, payload := scan(t, src, tree.MinPieceLength)
	s := stage(t, t.TempDir()+"/d", tr)
	fill(t, s, payload, tree.MinPieceLength)
	must(t, s.Finish(context.Background(), Completion{State: t.TempDir()}))
	if out, err := exec.Command(s.Dest() + "/true").CombinedOutput(); err != nil {
		t.Errorf("%v %s", err, out)
	}
}

// When the destination goes away under a stage that serves it, the error says
// which path.
func TestDestinationVanishes(t *testing.T) {
	tr, payload := scan(t, small(t), tree.MinPieceLength)
	s := stage(t, t.TempDir()+"/d", tr)
	fill(t, s, payload, tree.MinPieceLength)
	must(t, s.Finish(context.Background(), Completion{State: t.TempDir()}), os.RemoveAll(s.Dest()))
	must(t, os.MkdirAll(s.Dest()+"/d", 0o755), os.WriteFile(s.Dest()+"/d/f", bytes.Repeat([]byte("evil"), 9), 0o644))
	_, err := s.ReadAt(make([]byte, len(payload)), 0)
	if err == nil || !strings.Contains(err.Error(), s.Dest()+"/") {
		t.Errorf("%v", err)
	}
}

// Paths longer than the system takes in one call work, since none is ever
// given whole.
func TestLongPaths(t *testing.T) {
	nodes, p := []tree.Node{}, ""
	for range 19 {
		p = filepath.Join(p, strings.Repeat("n", 200))
		nodes = append(nodes, tree.Node{Path: p, Kind: tree.Dir, Mode: 0o755})
	}
	nodes = append(nodes, tree.Node{Path: p + "/" + strings.Repeat("f", 255), Kind: tree.File, Mode: 0o644, Size: 3})
	tr, err := tree.Build(nodes, tree.Plan{})
	must(t, err)
	s := stage(t, t.TempDir()+"/"+strings.Repeat("d", 200)+"/dest", tr)
	fill(t, s, []byte("abc"), 1)
	must(t, s.Finish(context.Background(), Completion{State: t.TempDir()}))
	d, err := OpenDest(s.Dest(), tr)
	must(t, err)
	defer d.Close()
	if got, err := io.ReadAll(io.NewSectionReader(d, 0, 3)); string(got) != "abc" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
