package host

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dcfs/cmd/internal/catalog"
	"dcfs/fs/materialise"
	"dcfs/fs/release"
	"dcfs/fs/snapshot"
	"dcfs/fs/tree"
	"dcfs/swarm/metainfo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// known is a host that has the release web-1 in dir and knows it.
type known struct {
	state, dir, trusted, torrent string
	hash                         [20]byte
}

func newKnown(t *testing.T) known {
	t.Helper()
	top := t.TempDir()
	k := known{
		state: filepath.Join(top, "state"), dir: filepath.Join(top, "dir"),
		trusted: filepath.Join(top, "trusted"), torrent: filepath.Join(top, "web-1.torrent"),
	}
	for _, d := range []string{k.dir, k.trusted, filepath.Join(k.state, "metainfo")} {
		must(t, os.MkdirAll(d, 0o755))
	}
	must(t, os.WriteFile(filepath.Join(k.dir, "file"), []byte("content"), 0o644))
	must(t, release.GenerateKey(filepath.Join(k.trusted, "k")))
	raw, hash := seal(t, k.dir, filepath.Join(k.trusted, "k.key"))
	k.hash = hash
	must(t, os.WriteFile(k.torrent, raw, 0o644))
	kept := filepath.Join(k.state, "metainfo", hex.EncodeToString(hash[:])+".torrent")
	must(t, os.WriteFile(kept, raw, 0o644))
	must(t, materialise.WriteReceipt(k.state, k.dir, "web-1", hash))
	return k
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func seal(t *testing.T, dir, keyFile string) ([]byte, [20]byte) {
	t.Helper()
	scan, err := tree.Scan(context.Background(), dir, tree.ScanOptions{})
	must(t, err)
	tr, err := tree.Build(scan.Nodes, tree.Plan{})
	must(t, err)
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	found, err := snapshot.Hash(context.Background(), snapshot.Config{Root: root, Tree: tr})
	must(t, err)
	raw, err := metainfo.Create(tr.WithSums(found.Sum), metainfo.Params{Name: "web-1", Pieces: found.Pieces})
	must(t, err)
	m, err := metainfo.Parse(raw)
	must(t, err)
	key, err := release.LoadSecret(keyFile)
	must(t, err)
	raw, err = release.Seal(m, key, time.Now(), time.Time{})
	must(t, err)
	return raw, m.InfoHash
}

// deadOrigin is a URL at which nobody listens.
func deadOrigin(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestRelease(t *testing.T) {
	k := newKnown(t)
	m, err := metainfo.Parse(read(t, k.torrent))
	must(t, err)
	magnet := m.Magnet()
	other := magnet
	other.InfoHash[0]++
	for _, c := range []struct {
		name string
		q    Question
		want error
	}{
		{name: "file", q: Question{Word: k.torrent}},
		{name: "kept", q: Question{Word: "web-1", Dir: k.dir}},
		{name: "magnet", q: Question{Word: magnet.String()}},
		{"no origin, other version", Question{Word: "web-2", Dir: k.dir}, catalog.ErrUnknownRelease},
		{"no origin, other directory", Question{Word: "web-1", Dir: k.state}, catalog.ErrUnknownRelease},
		{"magnet of something else", Question{Word: other.String()}, catalog.ErrUnknownRelease},
		{"no magnet", Question{Word: "magnet:?nothing"}, metainfo.ErrInvalid},
		{"no word", Question{Word: ".."}, catalog.ErrUsage},
		{"no such file", Question{Word: "/none.torrent"}, catalog.ErrUnknownRelease},
		{"nobody trusted", Question{Word: k.torrent, Trusted: k.state}, release.ErrUntrusted},
		{"kept but not trusted any more", Question{Word: "web-1", Dir: k.dir, Trusted: k.state}, release.ErrUntrusted},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.q.State = k.state
			if c.q.Trusted == "" {
				c.q.Trusted = k.trusted
			}
			r, err := Release(context.Background(), c.q)
			if c.want != nil {
				if !errors.Is(err, c.want) {
					t.Errorf("error %v, want %v", err, c.want)
				}
				return
			}
			if err != nil || r.Name != "web-1" || r.InfoHash != k.hash {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// TestReleaseWithoutItsOrigin: an origin that is down is no reason not to look
// at what this host has.
func TestReleaseWithoutItsOrigin(t *testing.T) {
	k := newKnown(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	q := Question{Word: "web-1", Dir: k.dir, State: k.state, Trusted: k.trusted, Origins: []string{deadOrigin(t)}}
	patience = 50 * time.Millisecond
	defer func() { patience = originPatience }()
	if r, err := Release(ctx, q); err != nil || r.InfoHash != k.hash {
		t.Errorf("%v", err)
	}
	q.Word = "web-2"
	if _, err := Release(ctx, q); !errors.Is(err, catalog.ErrUnreachable) {
		t.Errorf("error %v, want that the origin does not answer", err)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	must(t, err)
	return raw
}

func TestVouch(t *testing.T) {
	k := newKnown(t)
	ctx := context.Background()
	if err := Vouch(ctx, k.state, k.dir); err != nil {
		t.Error(err)
	}
	for _, target := range []string{k.trusted, k.torrent, filepath.Join(k.state, "none")} {
		if err := Vouch(ctx, k.state, target); err == nil {
			t.Errorf("vouched for %s", target)
		}
	}
	// A directory that somebody put in the place of the release is not it.
	must(t, os.Rename(k.dir, k.dir+".old"))
	must(t, os.Mkdir(k.dir, 0o755))
	if err := Vouch(ctx, k.state, k.dir); err == nil {
		t.Error("vouched for another directory under the release's name")
	}
}
