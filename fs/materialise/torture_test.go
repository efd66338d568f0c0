package materialise

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"

	"dcfs/fs/tree"
)

// A capability set as the kernel stores it: revision 2, effective,
// cap_net_bind_service.
var capability = []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// torture makes a directory with everything that a release can hold.
func torture(t *testing.T) string {
	t.Helper()
	src := filepath.Join(t.TempDir(), "src")
	r := rand.New(rand.NewPCG(1, 2))
	content := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	must(t, os.Mkdir(src, 0o755))
	for _, d := range []string{"empty", "many", "locked", "sticky", "deep/er/and/deeper", "d\nnewline"} {
		must(t, os.MkdirAll(filepath.Join(src, d), 0o755))
	}
	for name, size := range map[string]int{
		"zero": 0, "one": 1, "setuid": 100, "caps": 4096, "locked/f": 70, "deep/er/and/deeper/leaf": 300_000,
		"big": 3<<20 + 17, "d\nnewline/a\tb\"c": 9, "\xff\xfenot utf-8": 11, strings.Repeat("x", 255): 12,
		" leading and trailing ": 2, "unreadable": 5,
	} {
		must(t, os.WriteFile(filepath.Join(src, name), content(size), 0o644))
	}
	for i := range 600 {
		must(t, os.WriteFile(filepath.Join(src, "many", fmt.Sprint("f", i)), content(r.IntN(2000)), 0o640))
	}
	sparse(t, src)
	must(t, os.Link(src+"/big", src+"/many/a hardlink"), os.Link(src+"/big", src+"/Zlink"),
		os.Link(src+"/zero", src+"/empty/also zero"),
		os.Symlink("nowhere", src+"/dangling"), os.Symlink("/etc/passwd", src+"/absolute"),
		os.Symlink("../../one", src+"/deep/er/up"), os.Symlink("many", src+"/to dir"), os.Symlink("\xfe", src+"/many/raw"))
	metadata(t, src)
	return src
}

// sparse makes files with a hole at the start, in the middle, at the end, and
// nothing but a hole.
func sparse(t *testing.T, src string) {
	t.Helper()
	for name, data := range map[string][]int64{"hole-start": {1 << 20}, "hole-mid": {0, 1 << 20}, "hole-end": {0}, "hole-all": {}} {
		f, err := os.Create(filepath.Join(src, name))
		must(t, err)
		for _, at := range data {
			_, err := f.WriteAt(bytes.Repeat([]byte{7}, 5000), at)
			must(t, err)
		}
		must(t, f.Truncate(2<<20+5000), f.Sync(), f.Close())
	}
}

func metadata(t *testing.T, src string) {
	t.Helper()
	if os.Geteuid() == 0 {
		must(t, os.Chown(src+"/setuid", 1234, 4321), os.Lchown(src+"/dangling", 7, 8), os.Chown(src+"/empty", 9, 10),
			xattr.Set(src+"/caps", "security.capability", capability), xattr.Set(src+"/many", "trusted.dcfs", []byte("t")))
	}
	must(t, unix.Chmod(src+"/setuid", 0o6755), unix.Chmod(src+"/sticky", 0o1777), unix.Chmod(src+"/empty", 0o2750),
		unix.Chmod(src+"/unreadable", 0), unix.Chmod(src+"/locked/f", 0o400),
		xattr.Set(src+"/one", "user.empty", nil), xattr.Set(src+"/big", "user.long", bytes.Repeat([]byte("v"), 1000)),
		xattr.Set(src+"/deep", "user.dir", []byte{0, 255}))
	for p, ns := range map[string]int64{
		"one": 1, "zero": 1_234_567_890_123_456_789, "dangling": 999_999_999, "big": -1, "empty": 1_700_000_000_000_000_001,
	} {
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: ns / 1e9, Nsec: ns % 1e9}}
		if ns < 0 {
			ts[1] = unix.Timespec{Sec: -1, Nsec: 999_999_999}
		}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(src, p), ts, unix.AT_SYMLINK_NOFOLLOW))
	}
	must(t, unix.Chmod(src+"/locked", 0o555), os.Chtimes(src, time.Time{}, time.Unix(1_600_000_000, 42)))
}

// scan makes a tree of the directory src, and its payload.
func scan(t testing.TB, src string, piece int64) (*tree.Tree, []byte) {
	t.Helper()
	found, err := tree.Scan(context.Background(), src, tree.ScanOptions{})
	must(t, err)
	nodes := found.Nodes
	for i := range nodes {
		if nodes[i].Kind == tree.File && nodes[i].Link == "" {
			b, err := os.ReadFile(filepath.Join(src, nodes[i].Path))
			must(t, err)
			nodes[i].Sum = sha256.Sum256(b)
		}
	}
	tr, err := tree.Build(nodes, tree.Plan{PieceLength: piece})
	must(t, err)
	payload := make([]byte, tr.Total())
	for id := range tr.Stream() {
		b, err := os.ReadFile(filepath.Join(src, tr.Path(id)))
		must(t, err)
		off, _ := tr.Span(id)
		copy(payload[off:], b)
	}
	return tr, payload
}

// fill writes the payload in pieces, in random order, from several goroutines.
func fill(t testing.TB, s *Stage, payload []byte, piece int) {
	t.Helper()
	var pieces []int
	for off := 0; off < len(payload); off += piece {
		pieces = append(pieces, off)
	}
	rand.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	todo := make(chan int)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for off := range todo {
				p := payload[off:min(off+piece, len(payload))]
				if n, err := s.WriteAt(p, int64(off)); n != len(p) || err != nil {
					t.Errorf("write at %d: %d, %v", off, n, err)
				}
				got := make([]byte, len(p))
				if _, err := s.ReadAt(got, int64(off)); err != nil || !bytes.Equal(got, p) {
					t.Errorf("read back at %d: %v", off, err)
				}
			}
		})
	}
	for _, off := range pieces {
		todo <- off
	}
	close(todo)
	all.Wait()
}

// sameByRsync lets rsync compare two directories with all that it knows.
func sameByRsync(t *testing.T, src, dest string) {
	t.Helper()
	if _, err := exec.LookPath("rsync"); err != nil {
		t.Log("SKIPPED: rsync is not installed, the copy is not compared by a tool that is not dcfs")
		return
	}
	out, err := exec.Command("rsync", "-aHAXni", "--checksum", "--delete", src+"/", dest+"/").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("rsync: %v\n%s", err, out)
	}
}
