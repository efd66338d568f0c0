package origin

import (
	"bytes"
	"context"
	"crypto/sha1"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"dcfs/cache/piece"
	"dcfs/fs/durable"
	"dcfs/fs/durable/faults"
	"dcfs/fs/materialise"
	"dcfs/swarm/metainfo"
)

var update = flag.Bool("update", false, "write the golden files anew")

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// raceDetector: the tests run with it.
var raceDetector bool

var quiet = slog.New(slog.DiscardHandler)

// publish puts DIR/src into the store as version, as dcfs publish does.
func publish(dir, version string, disk durable.Disk) error {
	_, err := Publish(context.Background(), PublishConfig{
		Dir: dir + "/src", Version: version, State: dir + "/state", Log: quiet, Disk: disk,
	})
	return err
}

// upload does it as an origin does that is sent the release over HTTP.
func upload(dir, version string, disk durable.Disk) error {
	raw, err := os.ReadFile(dir + "/" + version + ".torrent")
	if err != nil {
		return err
	}
	mi, err := metainfo.Parse(raw)
	if err != nil {
		return err
	}
	payload, err := os.ReadFile(dir + "/" + version + ".payload")
	if err != nil {
		return err
	}
	lib, err := openLibrary(dir+"/state", quiet, disk)
	if err != nil {
		return err
	}
	_, err = lib.Add(context.Background(), version, mi, bytes.NewReader(payload))
	return err
}

func job(before func(*testing.T, string), run func(dir, version string, disk durable.Disk) error) faults.Job {
	return faults.Job{
		Prepare: before,
		Run:     func(dir string, disk durable.Disk) error { return run(dir, "new", disk) },
		Holds:   holds,
		Done:    done,
	}
}

// prepare makes a directory to publish, and a store with an older release.
func prepare(t *testing.T, dir string) {
	src := dir + "/src"
	must(t, os.MkdirAll(src+"/d/empty", 0o750), os.WriteFile(src+"/d/f", bytes.Repeat([]byte("content "), 3000), 0o640),
		os.WriteFile(src+"/x", []byte("#!/bin/sh\n"), 0o755), os.Link(src+"/x", src+"/y"), os.Symlink("d/f", src+"/l"))
	then := time.Unix(1_700_000_000, 42)
	must(t, os.Chtimes(src+"/d/empty", then, then), os.Chtimes(src+"/d/f", then, then), os.Chtimes(src+"/x", then, then),
		os.Chtimes(src+"/d", then, then), os.Chtimes(src, then, then))
	must(t, publish(dir, "old", durable.Disk{}))
}

// prepareUpload makes the new release elsewhere, and keeps what is sent of it.
func prepareUpload(t *testing.T, dir string) {
	prepare(t, dir)
	src := dir + "/src"
	other := dir + "/other" // the same release made elsewhere
	must(t, os.Mkdir(other, 0o755), os.Symlink(src, other+"/src"), publish(other, "new", durable.Disk{}))
	lib, err := OpenLibrary(other+"/state", quiet)
	must(t, err)
	raw, err := lib.read("new")
	must(t, err, os.WriteFile(dir+"/new.torrent", raw, 0o644), os.WriteFile(dir+"/new.payload", whole(t, lib, "new"), 0o644))
}

// whole reads the payload of a stored version and checks every piece of it.
func whole(t *testing.T, lib *Library, version string) []byte {
	t.Helper()
	mi, err := lib.Metainfo(version)
	must(t, err)
	data, err := materialise.OpenDest(lib.Data(version), mi.Tree)
	must(t, err)
	defer data.Close()
	out := make([]byte, mi.Layout.Total)
	if _, err := data.ReadAt(out, 0); err != nil && err != io.EOF {
		t.Fatalf("version %s: %v", version, err)
	}
	for i := range piece.Index(mi.Layout.Count()) {
		off := mi.Layout.Offset(i)
		if sha1.Sum(out[off:off+int64(mi.Layout.Size(i))]) != mi.Pieces.Hash(i) {
			t.Errorf("version %s: piece %d is damaged", version, i)
		}
	}
	return out
}

// holds: a version that the store lists is whole, and the older one is there.
func holds(t *testing.T, dir string) {
	t.Helper()
	lib, err := OpenLibrary(dir+"/state", quiet)
	must(t, err)
	versions, err := lib.Versions()
	must(t, err)
	if !slices.Contains(versions, "old") {
		t.Errorf("the older release is gone: %v", versions)
	}
	want := faults.Listing(t, dir+"/src")
	for _, v := range versions {
		whole(t, lib, v)
		if got := faults.Listing(t, lib.Data(v)); got != want {
			t.Errorf("version %s is\n%s\nwant\n%s", v, got, want)
		}
	}
}

func done(t *testing.T, dir string) {
	t.Helper()
	lib, err := OpenLibrary(dir+"/state", quiet)
	must(t, err)
	versions, err := lib.Versions()
	must(t, err)
	if fmt.Sprint(versions) != "[new old]" {
		t.Errorf("the store holds %v", versions)
	}
	entries, err := os.ReadDir(lib.home("new"))
	must(t, err)
	if fmt.Sprint(entries) != "[d data/ - release.torrent]" {
		t.Errorf("the version's directory holds %v", entries)
	}
}

// Every single call of the store, while it is published into, fails once, in
// every way that a disk can fail. With the race detector, which takes eight times as
// long, in one way: `make race` has all of them without it, too.
func TestEveryFault(t *testing.T) {
	var only []string
	if raceDetector {
		only = []string{"EIO"}
	}
	t.Run("publish", func(t *testing.T) { faults.Sweep(t, job(prepare, publish), only...) })
	t.Run("upload", func(t *testing.T) { faults.Sweep(t, job(prepareUpload, upload), only...) })
}

// The process is killed before and after every single change.
func TestPublishKilled(t *testing.T) { faults.Kill(t, job(prepare, publish)) }
func TestUploadKilled(t *testing.T)  { faults.Kill(t, job(prepareUpload, upload)) }

// A kill says nothing about power: what the order of writes and syncs is then
// for. The metainfo comes last of all.
func TestGolden(t *testing.T) {
	dir := faults.Dir(t)
	prepareUpload(t, dir)
	log := faults.NewLog(dir+"/state", "STATE")
	must(t, upload(dir, "new", log.Disk()))
	log.Golden(t, "testdata/publish.golden", *update)
	b, err := os.ReadFile("testdata/publish.golden")
	must(t, err)
	// Behind it only the publishers' lock goes.
	if !strings.HasSuffix(string(b), "rename STATE/origin/new/release.torrent\nfsync STATE/origin/new\nunlink STATE/origin/.publish-new\n") {
		t.Error("the metainfo does not come last")
	}
}
