package materialise

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

const asNobody = "DCFS_TEST_AS_NOBODY"

// Root runs this test again as somebody else.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		unprivileged(t)
		return
	}
	if os.Getenv(asNobody) != "" {
		t.Fatal("still root")
	}
	dir := t.TempDir()
	binary, err := os.ReadFile("/proc/self/exe")
	must(t, err, os.WriteFile(dir+"/test", binary, 0o755), os.Mkdir(dir+"/tmp", 0o700), os.Chown(dir+"/tmp", 65534, 65534),
		os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755))
	cmd := exec.Command(dir+"/test", "-test.run=^TestUnprivileged$", "-test.v")
	cmd.Dir = dir + "/tmp"
	cmd.Env = append(os.Environ(), asNobody+"=1", "TMPDIR="+dir+"/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

// Owners stay ours, setuid goes where it would be ours too, what only root may
// set is left out; and a Finish that failed after the final modes were set
// goes on although they lock us out.
func unprivileged(t *testing.T) {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	nodes := []tree.Node{
		{Path: "roots", Kind: tree.File, Mode: 0o6755, Size: 1},
		{Path: "mine", Kind: tree.File, Mode: 0o6755, UID: uid, GID: gid, Size: 1},
		{Path: "locked", Kind: tree.Dir, Mode: 0o555},
		{Path: "locked/secret", Kind: tree.File, Mode: 0, Size: 1, Xattrs: []tree.Xattr{{Name: "user.x", Value: []byte("1")}}},
		{Path: "locked/link", Kind: tree.Symlink, Target: "x", Mode: 0o777},
		{Path: "caps", Kind: tree.File, Mode: 0o755, Size: 1, Xattrs: []tree.Xattr{{Name: "security.capability", Value: capability}}},
	}
	tr, err := tree.Build(nodes, tree.Plan{})
	must(t, err)
	fail := true
	disk := durable.Disk{Before: func(op, _ string) error {
		if fail && op == "syncfs" {
			return unix.EIO
		}
		return nil
	}}
	dest := t.TempDir() + "/d"
	s, err := OpenStage(StageConfig{Dest: dest, Tree: tr, InfoHash: hash, Disk: disk})
	must(t, err)
	_, err = s.WriteAt([]byte("abcd"), 0)
	must(t, err)
	if err := s.Finish(context.Background(), Completion{State: t.TempDir()}); !errors.Is(err, unix.EIO) {
		t.Fatalf("finish: %v", err)
	}
	fail = false
	_, err = s.WriteAt([]byte("abcd"), 0)
	must(t, err, s.SaveHave([]byte{0x80}), s.Finish(context.Background(), Completion{State: t.TempDir()}), s.Close())
	if want := (Losses{Owners: 5, SetIDs: 1, Xattrs: 1}); s.Losses() != want {
		t.Errorf("losses %+v, want %+v", s.Losses(), want)
	}
	for p, mode := range map[string]uint32{"roots": 0o755, "mine": 0o6755, "locked": 0o555, "locked/secret": 0, "caps": 0o755} {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dest, p), &st))
		if st.Mode&0o7777 != mode || st.Uid != uid {
			t.Errorf("%s: mode %o, uid %d; want %o, %d", p, st.Mode&0o7777, st.Uid, mode, uid)
		}
	}
	// A stage whose directories are locked already can be discarded too.
	fail = true
	s, err = OpenStage(StageConfig{Dest: dest + "2", Tree: tr, InfoHash: hash, Disk: disk})
	must(t, err)
	_, err = s.WriteAt([]byte("abcd"), 0)
	must(t, err)
	if err := s.Finish(context.Background(), Completion{State: t.TempDir()}); !errors.Is(err, unix.EIO) {
		t.Fatalf("finish: %v", err)
	}
	must(t, s.Discard(), s.Close(), os.Chmod(dest+"/locked", 0o700))
}
