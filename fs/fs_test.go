package fs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/fs/tree"
)

func build(nodes ...tree.Node) *tree.Tree {
	tr, err := tree.Build(nodes, tree.Plan{})
	if err != nil {
		panic(err)
	}
	return tr
}

func file(p string, size int64) tree.Node {
	return tree.Node{Path: p, Kind: tree.File, Mode: 0o644, Size: size, Mtime: 1e18 + 123456789}
}

func dir(p string) tree.Node {
	return tree.Node{Path: p, Kind: tree.Dir, Mode: 0o755, Mtime: 1e18}
}

func smallTree() *tree.Tree {
	return build(dir("d"), file("d/a", 100_000), file("b", 3))
}

// richTree has something of everything.
func richTree() *tree.Tree {
	nodes := []tree.Node{
		{Path: ".", Kind: tree.Dir, Mode: 0o755, Mtime: 5e17 + 7},
		dir("dir"), dir("dir/empty"), dir("many"),
		file("dir/big", 3<<20+17), file("dir/small", 5), file("zero", 0),
		{Path: "dir/again", Kind: tree.File, Link: "zz-linked"},
		{Path: "zz-linked", Kind: tree.File, Mode: 0o600, Size: 9000, UID: 12, GID: 34, Mtime: -1},
		{Path: "setuid", Kind: tree.File, Mode: 0o4755, Size: 10, UID: 1000, GID: 1001, Mtime: -1_500_000_000},
		{Path: "sticky", Kind: tree.Dir, Mode: 0o1777},
		{Path: "link", Kind: tree.Symlink, Mode: 0o777, Target: "dir/big", Mtime: 42},
		{Path: "long", Kind: tree.Symlink, Mode: 0o777, Target: strings.Repeat("x/", 2000)},
		{Path: "odd \n\xff name", Kind: tree.File, Mode: 0o444, Size: 1},
		{Path: "attrs", Kind: tree.File, Mode: 0o644, Size: 2, Xattrs: []tree.Xattr{
			{Name: "user.a", Value: []byte("one")}, {Name: "user.empty"}, {Name: "trusted.big", Value: make([]byte, 50_000)},
		}},
		{Path: "dirattrs", Kind: tree.Dir, Mode: 0o755, Xattrs: []tree.Xattr{{Name: "user.d", Value: []byte("x")}}},
	}
	for i := range 2000 {
		nodes = append(nodes, file(fmt.Sprintf("many/file-%04d", i), int64(i%7)))
	}
	return build(nodes...)
}

func expect(tr *tree.Tree, m *memory) map[string]seen {
	all := make(map[string]seen)
	for id := range tree.ID(tr.Len()) {
		e := tr.Entry(id)
		s := seen{Path: tr.Path(id), Target: e.Target, Mode: modeOf(e.Kind) | e.Mode, UID: e.UID, GID: e.GID,
			Size: e.Size, Mtime: e.Mtime, Ino: uint64(e.Inode) + 1, Links: uint64(e.Links)}
		if e.Kind == tree.File {
			s.Sum = fmt.Sprintf("%x", sha256.Sum256(m.file(tr, s.Path)))
			s.Blocks = (e.Size + 4095) / 4096 * 8
		}
		for _, x := range e.Xattrs {
			if s.Xattrs == nil {
				s.Xattrs = make(map[string]string)
			}
			s.Xattrs[x.Name] = string(x.Value)
		}
		s.Path = strings.ToValidUTF8(s.Path, "\uFFFD")
		all[s.Path] = s
	}
	return all
}

func TestEverythingIsThere(t *testing.T) {
	tr := richTree()
	m := newMemory(tr)
	mp := filepath.Join(t.TempDir(), "mp")
	var reads atomic.Int64
	s := mountAt(t, mp, Config{Tree: tr, Content: m, Version: "web-1", OnRead: func(tree.ID, int64, int) { reads.Add(1) }})
	want := expect(tr, m)
	var held, read int64
	warm := false
	for round := 0; round < 6 && !warm; round++ {
		got := make(map[string]seen)
		dec := json.NewDecoder(strings.NewReader(run(t, "list", mp)))
		for dec.More() {
			var s seen
			if err := dec.Decode(&s); err != nil {
				t.Fatal(err)
			}
			got[s.Path] = s
		}
		if len(got) != len(want) {
			t.Errorf("round %d: %d entries, want %d", round, len(got), len(want))
		}
		for p, w := range want {
			g := got[p]
			if !maps.Equal(g.Xattrs, w.Xattrs) {
				t.Errorf("%q: xattrs %.200q, want %.200q", p, g.Xattrs, w.Xattrs)
			}
			g.Xattrs, w.Xattrs = nil, nil
			if fmt.Sprint(g) != fmt.Sprint(w) {
				t.Errorf("%q:\ngot  %+v\nwant %+v", p, g, w)
			}
		}
		// Readahead of an earlier walk may still come in, and the kernel may
		// drop what it likes; but a walk can come from its caches, all but a
		// page here and there of thousands.
		h, r := s.raw.holds.total.Load(), reads.Load()
		t.Logf("round %d looked up %d names and sent %d reads", round, h-held, r-read)
		warm = round > 0 && h == held && r-read <= int64(len(want))/100
		held, read = h, r
	}
	if !warm {
		t.Error("no walk came from the kernel's caches")
	}
	checkMount(t, mp, tr)
}

func checkMount(t *testing.T, mp string, tr *tree.Tree) {
	t.Helper()
	info := mountsAt(t, mp)
	if len(info) != 1 || !strings.Contains(info[0], " - fuse.dcfs dcfs:web-1 ro,") || !strings.Contains(info[0], " ro,nodev,noatime ") {
		t.Errorf("mountinfo %q", info)
	}
	if got, want := run(t, "statfs", mp), fmt.Sprintf("%d 4096 0 %d 255", (tr.Bytes()+4095)/4096, tr.Len()); got != want {
		t.Errorf("statfs %q, want %q", got, want)
	}
}

func TestReadAheadAndNoSUID(t *testing.T) {
	tr := smallTree()
	mp := t.TempDir()
	s := mountAt(t, mp, Config{Tree: tr, Content: newMemory(tr), NoSUID: true, ReadAhead: 2048})
	b, err := os.ReadFile(fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", s.mnt.major, s.mnt.minor))
	if err != nil || strings.TrimSpace(string(b)) != "2048" {
		t.Errorf("read_ahead_kb %q, %v", b, err)
	}
	if info := mountsAt(t, mp); !strings.Contains(info[0], " ro,nosuid,nodev,noatime ") {
		t.Errorf("mountinfo %q", info)
	}
}

// A READ that waits too long fails with EIO, is logged once, and leaves
// nothing behind that would spoil the next.
func TestReadTimesOutAndRecovers(t *testing.T) {
	tr := smallTree()
	m := newMemory(tr)
	m.close(0, tr.Total())
	log := &logs{}
	mp := t.TempDir()
	mountAt(t, mp, Config{Tree: tr, Content: m, ReadTimeout: 50 * time.Millisecond, Log: log.logger()})
	if got := run(t, "read", mp+"/d/a", "8192", "4096"); strings.TrimSpace(got) != unix.EIO.Error() {
		t.Errorf("got %q, want EIO", got)
	}
	for _, want := range []string{"read failed", "file=d/a", "offset=8192", "length=4096", ErrReadTimeout.Error(), "age="} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	m.open()
	want := digest(m.file(tr, "d/a")[8192:12288])
	if got := strings.TrimSpace(run(t, "read", mp+"/d/a", "8192", "4096")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Readers that wait for missing pieces must not be in the way of others.
func TestBlockedReadersBlockNobodyElse(t *testing.T) {
	var nodes []tree.Node
	for i := range 101 {
		nodes = append(nodes, file(fmt.Sprintf("f%03d", i), 200_000))
	}
	tr := build(nodes...)
	m := newMemory(tr)
	m.close(200_000, tr.Total()) // all but f000
	mp := t.TempDir()
	mountAt(t, mp, Config{Tree: tr, Content: m})
	var missing []string
	for _, n := range nodes[1:] {
		missing = append(missing, mp+"/"+n.Path)
	}
	blocked := role(t, "flood", missing...)
	var out strings.Builder
	blocked.Stdout = &out
	if err := blocked.Start(); err != nil {
		t.Fatal(err)
	}
	for range missing {
		<-m.waiting
	}
	want := digest(m.file(tr, "f000")[100_000:150_000])
	if got := strings.TrimSpace(run(t, "read", mp+"/f000", "100000", "50000")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	m.open()
	if err := blocked.Wait(); err != nil || strings.Count(out.String(), "4096 ") != len(missing) {
		t.Errorf("%v; %d of %d reads came through", err, strings.Count(out.String(), "4096 "), len(missing))
	}
}

func TestResidentShowsInBlocks(t *testing.T) {
	tr := smallTree()
	var present int64 = 10_000
	mp := t.TempDir()
	mountAt(t, mp, Config{Tree: tr, Content: newMemory(tr), Resident: func(_, n int64) int64 { return min(n, present) }})
	var s seen
	for dec := json.NewDecoder(strings.NewReader(run(t, "list", mp))); dec.More(); {
		if err := dec.Decode(&s); err != nil {
			t.Fatal(err)
		}
		if s.Path == "d/a" && s.Blocks != 24 {
			t.Errorf("%s has %d blocks, want 24", s.Path, s.Blocks)
		}
	}
}

func TestOnReadSeesReads(t *testing.T) {
	tr := smallTree()
	reads := make(chan string, 100)
	mp := t.TempDir()
	mountAt(t, mp, Config{Tree: tr, Content: newMemory(tr), OnRead: func(id tree.ID, off int64, n int) {
		reads <- fmt.Sprint(tr.Path(id), " ", off, " ", n)
	}})
	run(t, "read", mp+"/d/a", "4096", "4096")
	if got := <-reads; got != "d/a 4096 4096" {
		t.Errorf("got %q", got)
	}
}

func acl(uid, perm uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{1, 6, ^uint32(0)}, {2, perm, uid}, {4, 0, ^uint32(0)}, {16, perm, ^uint32(0)}, {32, 0, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

// The kernel checks modes and ACLs, without asking.
func TestPermissions(t *testing.T) {
	tr := build(
		tree.Node{Path: "secret", Kind: tree.File, Mode: 0o600, Size: 5},
		tree.Node{Path: "mine", Kind: tree.File, Mode: 0o400, Size: 5, UID: 1000},
		tree.Node{Path: "acl", Kind: tree.File, Mode: 0o640, Size: 5,
			Xattrs: []tree.Xattr{{Name: "system.posix_acl_access", Value: acl(1000, 4)}}},
	)
	m := newMemory(tr)
	mp := t.TempDir()
	if err := os.Chmod(filepath.Dir(mp), 0o755); err != nil {
		t.Fatal(err)
	}
	mountAt(t, mp, Config{Tree: tr, Content: m})
	for _, c := range []struct{ file, uid, want string }{
		{"secret", "0", digest(m.file(tr, "secret"))},
		{"secret", "1000", unix.EACCES.Error()},
		{"mine", "1000", digest(m.file(tr, "mine"))},
		{"mine", "1001", unix.EACCES.Error()},
		{"acl", "1000", digest(m.file(tr, "acl"))},
		{"acl", "1001", unix.EACCES.Error()},
	} {
		if got := strings.TrimSpace(run(t, "read", mp+"/"+c.file, "0", "10", c.uid)); got != c.want {
			t.Errorf("%s as %s: %q, want %q", c.file, c.uid, got, c.want)
		}
	}
}
