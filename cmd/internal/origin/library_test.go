package origin

import (
	"context"
	"errors"
	"net/http"
	"os"
	"sync"
	"testing"

	"dcfs/cmd/internal/catalog"
	"dcfs/fs/durable"
)

// TestPublishersAtOnce: of several publishers of one version one makes it, and
// none takes anything away from another.
func TestPublishersAtOnce(t *testing.T) {
	for round := range 10 {
		dir := t.TempDir()
		prepare(t, dir)
		must(t, os.MkdirAll(dir+"/other/src", 0o755), os.WriteFile(dir+"/other/src/x", []byte("other content"), 0o644),
			os.Symlink(dir+"/state", dir+"/other/state"))
		var wg sync.WaitGroup
		ends := make([]error, 6)
		for i := range ends {
			from := dir
			if i%3 == 2 {
				from = dir + "/other"
			}
			wg.Go(func() { ends[i] = publish(from, "new", durable.Disk{}) })
		}
		wg.Wait()
		lib, err := OpenLibrary(dir+"/state", quiet)
		must(t, err)
		whole(t, lib, "new")
		mi, err := lib.Metainfo("new")
		must(t, err)
		_, others := mi.Tree.Find("d/f")
		for i, err := range ends {
			if ours := i%3 != 2; ours == others && err != nil || ours != others && !errors.Is(err, catalog.ErrConflict) {
				t.Errorf("round %d: publisher %d ended with %v", round, i, err)
			}
		}
		left, err := os.ReadDir(lib.dir)
		must(t, err)
		if len(left) != 2 {
			t.Errorf("round %d: the store holds %v", round, left)
		}
	}
}

// TestClaimEnds: who waits for another publisher can be told to stop.
func TestClaimEnds(t *testing.T) {
	lib, err := OpenLibrary(t.TempDir(), quiet)
	must(t, err)
	release, err := lib.claim(t.Context(), "a/b")
	must(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := lib.claim(ctx, "a/b"); !errors.Is(err, stop) {
		t.Errorf("while another publishes: %v", err)
	}
	other, err := lib.claim(ctx, "a/c")
	must(t, err)
	other()
	release()
	again, err := lib.claim(ctx, "a/b")
	must(t, err)
	again()
}

// TestOneSwarmForTwoVersions: versions whose last segments are equal can have
// one info-hash, and are both served.
func TestOneSwarmForTwoVersions(t *testing.T) {
	dir := t.TempDir()
	prepare(t, dir)
	for _, v := range []string{"one/v", "two/v"} {
		must(t, publish(dir, v, durable.Disk{}))
	}
	ctx, stop := context.WithCancel(t.Context())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{
			Listen: "127.0.0.1:0", PeerListen: "127.0.0.1:0", State: dir + "/state", Log: quiet,
			OnReady: func(addr, _ string) { ready <- addr },
		})
	}()
	var addr string
	select {
	case addr = <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	client := &catalog.Client{Origins: []string{"http://" + addr}}
	defer client.Close()
	var hashes []string
	for _, v := range []catalog.Version{"one/v", "two/v"} {
		r, err := client.Get(ctx, v)
		must(t, err)
		hashes = append(hashes, r.Infohash)
		_, err = client.Metainfo(ctx, v)
		must(t, err)
		res, err := http.Get("http://" + addr + "/data/" + string(v) + "/x")
		must(t, err)
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("the web seed of %s: %s", v, res.Status)
		}
	}
	if hashes[0] != hashes[1] {
		t.Errorf("infohashes %v", hashes)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
