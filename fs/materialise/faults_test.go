package materialise

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/durable/faults"
	"dcfs/fs/tree"
)

var update = flag.Bool("update", false, "write the golden files anew")

// varied makes a small directory with one of each that a release can hold, in
// a handful of pieces.
func varied(t *testing.T) string {
	t.Helper()
	src := small(t)
	must(t, os.WriteFile(src+"/d/long", bytes.Repeat([]byte("0123456789abcdef"), 3000), 0o644),
		xattr.Set(src+"/d/long", "user.k", []byte("v")), os.Mkdir(src+"/nothing", 0o700), os.Symlink("gone", src+"/d/e/dangling"))
	f, err := os.Create(src + "/sparse")
	must(t, err)
	_, err = f.WriteAt([]byte("after the hole"), 64<<10)
	must(t, err, f.Sync(), f.Close())
	if os.Geteuid() == 0 {
		must(t, os.Chown(src+"/x", 1, 2), os.Lchown(src+"/l", 3, 4), unix.Chmod(src+"/x", 0o4755))
	}
	// The same times in every process that runs this.
	ns := int64(1_700_000_000_000_000_001)
	must(t, filepath.WalkDir(src, func(p string, _ os.DirEntry, err error) error {
		ns += 1_000_000_007
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(ns)}
		return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW))
	}))
	return src
}

// work is the materialising of one release, as a start of the agent does it.
type work struct {
	tree    *tree.Tree
	payload []byte
	want    string // the listing of the source
	inPlace bool   // an empty directory stands at the destination, for an exchange
}

func newWork(t *testing.T) *work {
	src := varied(t)
	tr, payload := scan(t, src, tree.MinPieceLength)
	return &work{tree: tr, payload: payload, want: faults.Listing(t, src)}
}

func (w *work) job() faults.Job {
	return faults.Job{Prepare: w.prepare, Run: w.run, Holds: w.holds, Done: w.done}
}

const firstPiece = 0x80 // in a bitfield

// prepare leaves a whole older release, and a stage of this one that an earlier
// process left: one piece is durable, another half written, and in the tree is
// something that does not belong there.
func (w *work) prepare(t *testing.T, dir string) {
	old := StageConfig{Dest: dir + "/old", Tree: w.tree, InfoHash: [20]byte{9}}
	s, err := OpenStage(old)
	must(t, err)
	_, err = s.WriteAt(w.payload, 0)
	must(t, err, s.Finish(context.Background(), Completion{State: dir + "/state"}), s.Close())
	s, err = OpenStage(w.config(dir, durable.Disk{}))
	must(t, err)
	_, err = s.WriteAt(w.payload[:tree.MinPieceLength], 0)
	must(t, err, s.SaveHave([]byte{firstPiece}))
	_, err = s.WriteAt(bytes.Repeat([]byte{1}, 100), tree.MinPieceLength)
	must(t, err, s.Close(), os.MkdirAll(dir+"/.new.dcfs/tree/stranger/in", 0o700))
	if w.inPlace {
		must(t, os.Mkdir(dir+"/new", 0o711))
	}
}

func (w *work) config(dir string, disk durable.Disk) StageConfig {
	return StageConfig{Dest: dir + "/new", Tree: w.tree, InfoHash: hash, Disk: disk}
}

func (w *work) run(dir string, disk durable.Disk) (err error) {
	if done, err := Complete(dir+"/state", dir+"/new", hash); done || err != nil {
		return errors.Join(err, RemoveStage(dir+"/new"))
	}
	s, err := OpenStage(w.config(dir, disk))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	have, _ := s.LoadHave()
	if len(have) == 0 || have[0]&firstPiece == 0 {
		return errors.New("the durable progress is lost")
	}
	for off := 0; off < len(w.payload); off += tree.MinPieceLength {
		if err := w.piece(s, have[0], off); err != nil {
			return err
		}
	}
	if err := s.SaveHave([]byte{0xff}); err != nil {
		return err
	}
	c := Completion{State: dir + "/state", Version: "v"}
	if w.inPlace {
		c.InPlace = func(exchange func() error) error { return exchange() }
	}
	if err := s.Finish(context.Background(), c); err != nil {
		return err
	}
	return s.Clear()
}

// piece reads the piece at off if it is claimed, and writes it if not.
func (w *work) piece(s *Stage, have byte, off int) error {
	want := w.payload[off:min(off+tree.MinPieceLength, len(w.payload))]
	if have&(firstPiece>>(off/tree.MinPieceLength)) == 0 {
		_, err := s.WriteAt(want, int64(off))
		return err
	}
	got := make([]byte, len(want))
	if _, err := s.ReadAt(got, int64(off)); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("the durable piece at %d is lost", off)
	}
	return nil
}

// holds: nothing or the whole release stands under the final name, what counts
// as complete is what stands there, and the older release is untouched.
func (w *work) holds(t *testing.T, dir string) {
	t.Helper()
	done, err := Complete(dir+"/state", dir+"/new", hash)
	must(t, err)
	entries, err := os.ReadDir(dir + "/new")
	if visible := err == nil && (!w.inPlace || len(entries) > 0); visible != done {
		t.Errorf("visible %v, complete %v", visible, done)
	}
	if done {
		w.same(t, dir+"/new")
	}
	w.same(t, dir+"/old")
	if ok, err := Complete(dir+"/state", dir+"/old", [20]byte{9}); !ok || err != nil {
		t.Errorf("the older release is not complete any more: %v", err)
	}
}

func (w *work) done(t *testing.T, dir string) {
	t.Helper()
	if done, err := Complete(dir+"/state", dir+"/new", hash); !done || err != nil {
		t.Errorf("complete: %v, %v", done, err)
	}
	if got := names(t, dir); got != "new old state" && got != ".new.dcfs new old state" {
		t.Errorf("left: %q", got)
	}
}

func (w *work) same(t *testing.T, path string) {
	t.Helper()
	if got := faults.Listing(t, path); got != w.want {
		t.Errorf("%s is\n%s\nwant\n%s", path, got, w.want)
	}
}

// Every single call of filling and finishing a release fails once, in every
// way that a disk can fail.
func TestEveryFault(t *testing.T) { faults.Sweep(t, newWork(t).job()) }

// The process is killed before and after every single change.
func TestEveryKill(t *testing.T) { faults.Kill(t, newWork(t).job()) }

// The same where the release takes the place of an empty directory, as a
// mountpoint's is.
func TestEveryKillInPlace(t *testing.T) {
	w := newWork(t)
	w.inPlace = true
	faults.Kill(t, w.job())
}

func TestEveryFaultInPlace(t *testing.T) {
	w := newWork(t)
	w.inPlace = true
	faults.Sweep(t, w.job(), "EIO")
}

// What came to stand in the directory meanwhile is not thrown away.
func TestInPlaceOverContent(t *testing.T) {
	w, dir := newWork(t), faults.Dir(t)
	w.inPlace = true
	w.prepare(t, dir)
	s, err := OpenStage(w.config(dir, durable.Disk{}))
	must(t, err)
	defer s.Close()
	_, err = s.WriteAt(w.payload, 0)
	must(t, err, os.WriteFile(dir+"/new/mine", nil, 0o600))
	c := Completion{State: dir + "/state", InPlace: func(exchange func() error) error { return exchange() }}
	if err := s.Finish(context.Background(), c); !errors.Is(err, ErrForeign) {
		t.Errorf("%v", err)
	}
	if got := names(t, dir+"/new"); got != "mine" {
		t.Errorf("there is %q", got)
	}
}

// A kill says nothing about power: what the order of writes and syncs is then
// for. It is written down here, from the opening to the end.
func TestGolden(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("SKIPPED: the golden log has changes of owner in it, which need root")
		return
	}
	w, dir := newWork(t), faults.Dir(t)
	log := faults.NewLog(dir+"/.new.dcfs", "STAGE", dir+"/new", "DEST", dir+"/state", "STATE", dir, "PARENT")
	w.prepare(t, dir)
	must(t, w.run(dir, log.Disk()))
	log.Golden(t, "testdata/materialise.golden", *update)
	checkOrder(t, "testdata/materialise.golden")
}

// checkOrder holds the golden log against what makes it safe, so that nobody
// updates it without a thought.
func checkOrder(t *testing.T, golden string) {
	t.Helper()
	b, err := os.ReadFile(golden)
	must(t, err)
	lines := strings.Split(string(b), "\n")
	last := func(prefix string) int {
		for i := len(lines) - 1; i >= 0; i-- {
			if strings.HasPrefix(lines[i], prefix) {
				return i
			}
		}
		t.Errorf("no call %q", prefix)
		return -1
	}
	steps := []int{last("write STAGE/tree"), last("utimes STAGE/tree"), last("syncfs STAGE/tree"), last("fsync STATE/receipts/."),
		last("rename STATE/receipts"), last("fsync STATE/receipts"), last("rename DEST"), last("rmdir STAGE"), last("fsync PARENT")}
	for i := range steps[1:] {
		if steps[i+1] <= steps[i] {
			t.Errorf("%q comes before %q", lines[max(steps[i+1], 0)], lines[max(steps[i], 0)])
		}
	}
	if rename := last("rename DEST"); lines[rename+1] != "fsync PARENT" {
		t.Errorf("the rename is followed by %q", lines[rename+1])
	}
}
