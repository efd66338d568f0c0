package materialise

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

var update = flag.Bool("update", false, "write the golden files anew")

// crash lets call number at, and all after it, fail, as if the process died
// there. It writes down the calls before that.
type crash struct {
	at int

	mu   sync.Mutex
	on   bool
	seen int
	log  []string
}

var errCrash = errors.New("crashed")

func (c *crash) disk(names *strings.Replacer) durable.Disk {
	random := regexp.MustCompile(`\.tmp-[0-9a-f]+|[0-9a-f]{32}`)
	return durable.Disk{Before: func(op, path string) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.on {
			return nil
		}
		c.seen++
		if c.at > 0 && c.seen >= c.at {
			return errCrash
		}
		c.log = append(c.log, op+" "+random.ReplaceAllString(names.Replace(path), "*"))
		return nil
	}}
}

func (c *crash) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = true
}

// finishOnce stages the release and finishes it with a crash at call at.
func finishOnce(t *testing.T, tr *tree.Tree, payload []byte, dest, state string, at int) (*crash, error) {
	t.Helper()
	c := &crash{at: at}
	names := strings.NewReplacer(filepath.Dir(dest), "PARENT", state, "STATE")
	s, err := OpenStage(StageConfig{Dest: dest, Tree: tr, InfoHash: hash, Disk: c.disk(names)})
	must(t, err)
	_, err = s.WriteAt(payload, 0)
	must(t, err, s.SaveHave([]byte{0xff}))
	c.start()
	err = s.Finish(context.Background(), Completion{State: state, Version: "v"})
	must(t, s.Close())
	return c, err
}

// The calls of Finish, and their order, are what a crash test relies on.
func TestFinishGolden(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("SKIPPED: the golden log has changes of owner in it, which need root")
		return
	}
	src := small(t)
	must(t, os.Chown(src+"/x", 1, 2), os.Lchown(src+"/l", 3, 4))
	tr, payload := scan(t, src, tree.MinPieceLength)
	c, err := finishOnce(t, tr, payload, t.TempDir()+"/rel", t.TempDir(), 0)
	must(t, err)
	got := strings.Join(c.log, "\n") + "\n"
	const golden = "testdata/finish.golden"
	if *update {
		must(t, os.MkdirAll("testdata", 0o755), os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if got != string(want) {
		t.Errorf("calls of Finish:\n%s\nwant (-update writes them anew):\n%s", got, want)
	}
}

// A crash at every single call of Finish shows nothing or the whole release,
// and the next run completes it and leaves nothing behind.
func TestFinishSurvivesEveryCrash(t *testing.T) {
	src := small(t)
	tr, payload := scan(t, src, tree.MinPieceLength)
	for at := 1; ; at++ {
		dest, state := t.TempDir()+"/rel", t.TempDir()
		c, err := finishOnce(t, tr, payload, dest, state, at)
		if c.seen < at {
			must(t, err)
			return
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("crash %d: %v", at, err)
		}
		done, err := Complete(state, dest, hash)
		must(t, err)
		if _, err := os.Lstat(dest); (err == nil) != done {
			t.Errorf("crash %d after %q: visible %v, complete %v", at, c.log[len(c.log)-1], err == nil, done)
		}
		if done {
			must(t, RemoveStage(dest))
		} else {
			s := stage(t, dest, tr)
			if _, ok := s.LoadHave(); !ok {
				t.Errorf("crash %d: the progress is lost", at)
			}
			must(t, s.Finish(context.Background(), Completion{State: state}))
		}
		if got := names(t, filepath.Dir(dest)); got != "rel" {
			t.Errorf("crash %d leaves %q", at, got)
		}
		if listing(t, dest) != listing(t, src) {
			t.Errorf("crash %d:\n%s\nwant\n%s", at, listing(t, dest), listing(t, src))
		}
	}
}

// listing describes a directory with the means of os alone.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(p, &st))
		rel, _ := filepath.Rel(dir, p)
		content, _ := os.Readlink(p)
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			b, err := os.ReadFile(p)
			must(t, err)
			content = string(b)
		}
		fmt.Fprintf(&out, "%q %o %d:%d %d links %d %q\n", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Nano(), st.Nlink, content)
		return nil
	})
	must(t, err)
	return out.String()
}

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
