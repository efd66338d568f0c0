package metainfo

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dcfs/fs/tree"
)

// Metainfo is no use unless other clients read it as we do.

var releases = map[string]func(testing.TB) *tree.Tree{
	"everything": everything,
	"plain":      func(t testing.TB) *tree.Tree { return build(t, dir("d"), file("d/f", 3), file("e", 0)) },
	"no payload": func(t testing.TB) *tree.Tree { return build(t, dir("d"), file("e", 0)) },
	"nothing":    func(t testing.TB) *tree.Tree { return build(t) },
}

// need returns the path of a program, and skips the test aloud without it.
func need(t *testing.T, path, name string) string {
	t.Helper()
	p, err := exec.LookPath(path)
	if err != nil {
		t.Skipf("NOT TESTED against %s: %v", name, err)
	}
	return p
}

func torrent(t *testing.T, tr *tree.Tree) (path string, m *Metainfo) {
	t.Helper()
	b := create(t, tr, params(tr, "app/1.0"))
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "release.torrent")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path, m
}

func TestAria2Agrees(t *testing.T) {
	aria2 := need(t, "aria2c", "aria2c")
	for name, tr := range releases {
		t.Run(name, func(t *testing.T) {
			path, m := torrent(t, tr(t))
			out, err := exec.CommandContext(t.Context(), aria2, "--no-conf", "-S", path).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{
				"Info Hash: " + hex.EncodeToString(m.InfoHash[:]), "Name: 1.0", "Mode: multi",
				fmt.Sprintf("The Number of Pieces: %d", m.Layout.Count()), fmt.Sprintf("(%s)", commas(m.Tree.Total())),
			} {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q is not in\n%s", want, out)
				}
			}
		})
	}
}

// commas writes n as aria2 does: 1,234,567.
func commas(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

const libtorrentScript = `
import json, sys, warnings
warnings.simplefilter("ignore")
import libtorrent as lt
i = lt.torrent_info(sys.argv[1])
f = i.files()
print(json.dumps({
	"hash": str(i.info_hash()), "name": i.name(), "pieces": i.num_pieces(), "length": i.piece_length(),
	"total": i.total_size(), "private": i.priv(), "trackers": [t.url for t in i.trackers()],
	"seeds": [w["url"] for w in i.web_seeds()],
	"files": [[f.file_path(k), f.file_size(k), int(f.file_flags(k))] for k in range(f.num_files())]}))
`

func TestLibtorrentAgrees(t *testing.T) {
	python := need(t, "/usr/bin/python3", "libtorrent")
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import libtorrent").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED against libtorrent: %s", out)
	}
	for name, tr := range releases {
		t.Run(name, func(t *testing.T) {
			path, m := torrent(t, tr(t))
			out, err := exec.CommandContext(t.Context(), python, "-c", libtorrentScript, path).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var got struct {
				Hash, Name            string
				Pieces, Length, Total int64
				Private               bool
				Trackers, Seeds       []string
				Files                 [][3]any
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if got.Hash != hex.EncodeToString(m.InfoHash[:]) || got.Name != "1.0" || !got.Private || got.Total != m.Tree.Total() ||
				got.Pieces != int64(m.Layout.Count()) || got.Length != pieceLength {
				t.Errorf("%s", out)
			}
			if !slices.Equal(got.Trackers, m.Trackers) || !slices.Equal(got.Seeds, m.WebSeeds) {
				t.Errorf("%s", out)
			}
			s := read(t, m.Encode())
			if len(got.Files) != len(s.Info.Files) {
				t.Fatalf("%d files, want %d\n%s", len(got.Files), len(s.Info.Files), out)
			}
			const pad, executable = 1, 4
			for i, f := range s.Info.Files {
				flags := int(got.Files[i][2].(float64))
				if got.Files[i][1].(float64) != float64(f.Length) || flags&pad != 0 != (f.Attr == "p") || flags&executable != 0 != (f.Attr == "x") {
					t.Errorf("%v, want %+v", got.Files[i], f)
				}
			}
		})
	}
}
