package materialise

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

func TestFinishStopsWithItsContext(t *testing.T) {
	tr, payload := scan(t, small(t), tree.MinPieceLength)
	s := stage(t, t.TempDir()+"/d", tr)
	fill(t, s, payload, tree.MinPieceLength)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Finish(ctx, Completion{State: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	must(t, s.Finish(context.Background(), Completion{State: t.TempDir()}))
}

// A full disk while the release is filled or finished is ENOSPC, and a later
// attempt, with space, goes through.
func TestDiskFull(t *testing.T) {
	tr, payload := scan(t, small(t), tree.MinPieceLength)
	full := true
	disk := durable.Disk{Before: func(op, _ string) error {
		if full && (op == "write" || op == "syncfs") {
			return unix.ENOSPC
		}
		return nil
	}}
	s, err := OpenStage(StageConfig{Dest: t.TempDir() + "/d", Tree: tr, InfoHash: hash, Disk: disk})
	must(t, err)
	defer s.Close()
	if _, err := s.WriteAt(payload, 0); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("write: %v", err)
	}
	full = false
	_, err = s.WriteAt(payload, 0)
	must(t, err)
	full = true
	if err := s.SaveHave([]byte{1}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("save: %v", err)
	}
	if _, ok := s.LoadHave(); ok {
		t.Error("progress is claimed that was not synced")
	}
	if err := s.Finish(context.Background(), Completion{State: t.TempDir()}); !errors.Is(err, ErrSpace) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("finish: %v", err)
	}
	full = false
	must(t, s.Finish(context.Background(), Completion{State: t.TempDir()}))
}

func TestReceipts(t *testing.T) {
	state, dir := t.TempDir(), t.TempDir()
	dest := dir + "/d"
	must(t, os.Mkdir(dest, 0o755))
	if _, ok, err := Lookup(state, dest); ok || err != nil {
		t.Errorf("no receipt: %v, %v", ok, err)
	}
	must(t, WriteReceipt(state, dest, "app/7", hash))
	must(t, os.Symlink(dir, dir+"/alias"))
	for _, name := range []string{dest, dest + "/", dir + "/alias/d"} {
		r, ok, err := Lookup(state, name)
		if !ok || err != nil || r.Version != "app/7" || r.InfoHash[:6] != "010203" || r.Schema != 1 {
			t.Errorf("%s: %+v, %v, %v", name, r, ok, err)
		}
	}
	if ok, err := Complete(state, dest, [20]byte{9}); ok || err != nil {
		t.Errorf("another release: %v, %v", ok, err)
	}
	// Another directory in its place, often with the same inode number.
	must(t, os.Remove(dest), os.Mkdir(dest, 0o755))
	if ok, err := Complete(state, dest, hash); ok || err != nil {
		t.Errorf("another directory: %v, %v", ok, err)
	}
	must(t, os.Remove(dest), os.WriteFile(dest, nil, 0o600))
	if ok, err := Complete(state, dest, hash); ok || err != nil {
		t.Errorf("a file: %v, %v", ok, err)
	}
	path := receiptPath(state, dest)
	for _, bad := range []string{"", "{", `{"schema":2}`, "[]"} {
		must(t, os.WriteFile(path, []byte(bad), 0o644))
		if ok, err := Complete(state, dest, hash); ok || err == nil {
			t.Errorf("receipt %q: %v, %v", bad, ok, err)
		}
	}
	must(t, RemoveReceipt(state, dest), RemoveReceipt(state, dest), RemoveReceipt(t.TempDir(), dest))
}

// The fields of a receipt are read by others.
func TestReceiptFields(t *testing.T) {
	b, err := json.Marshal(newReceipt("/d", "v", hash, identity{1, 2, 3}))
	must(t, err)
	want := `{"schema":1,"version":"v","infohash":"0102030000000000000000000000000000000000","dest":"/d","dev":1,"ino":2,"born":3,"completed":`
	if !strings.HasPrefix(string(b), want) {
		t.Errorf("%s\nwant %s…", b, want)
	}
}

func TestCheckSpace(t *testing.T) {
	parent := t.TempDir()
	huge, err := tree.Build([]tree.Node{{Path: "f", Kind: tree.File, Size: 1 << 50}}, tree.Plan{PieceLength: tree.MaxPieceLength})
	must(t, err)
	err = CheckSpace(parent+"/none/yet/d", huge)
	if !errors.Is(err, ErrSpace) || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "1.0 PiB needed") {
		t.Errorf("%v", err)
	}
	if names(t, parent) != "" {
		t.Error("the check left something")
	}
	holes, err := tree.Build([]tree.Node{{Path: "f", Kind: tree.File, Size: 1 << 50, Holes: []tree.Hole{{Offset: 0, Length: 1 << 50}}}}, tree.Plan{PieceLength: tree.MaxPieceLength})
	must(t, err, CheckSpace(parent+"/d", holes))

	st := unix.Statfs_t{Bsize: 4096, Bavail: 10, Files: 100, Ffree: 5}
	for need, ok := range map[want]bool{{40960, 5}: true, {40961, 5}: false, {1, 6}: false, {-1, -1}: true} {
		if err := compare("/d", need, &st); (err == nil) != ok || err != nil && !errors.Is(err, ErrSpace) {
			t.Errorf("%+v: %v", need, err)
		}
	}
	st.Files, st.Ffree = 0, 0
	must(t, compare("/d", want{1, 1000}, &st))
}

// What is staged already is not needed again.
func TestSpaceCountsWhatIsStaged(t *testing.T) {
	tr, payload := scan(t, torture(t), testPiece)
	dest := t.TempDir() + "/d"
	s := stage(t, dest, tr)
	fill(t, s, payload, testPiece)
	must(t, s.Sync())
	bytes, inodes := needs(tr, 4096)
	gotBytes, gotInodes := staged(filepath.Join(filepath.Dir(dest), stageName(dest)))
	if gotBytes < bytes*9/10 || gotBytes > bytes*11/10 || gotInodes > inodes+5 || gotInodes < inodes*9/10 {
		t.Errorf("staged %d bytes in %d inodes; the release needs %d in %d", gotBytes, gotInodes, bytes, inodes)
	}
}

func FuzzDecodeHave(f *testing.F) {
	f.Add(encodeHave(hash, []byte{1, 2, 3}))
	f.Add(encodeHave(hash, nil))
	f.Add([]byte(haveMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		of, bits, err := decodeHave(b)
		if err == nil && string(encodeHave(of, bits)) != string(b) {
			t.Errorf("%x is taken and is not what would be written", b)
		}
	})
}
