package faults

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
)

// describe says all of path itself that a release keeps.
func describe(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	content, _ := os.Readlink(path)
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		content = fmt.Sprintf("%d bytes %x", len(b), sha256.Sum256(b))
	}
	return fmt.Sprintf("%o %d:%d %d links %d %q%s", st.Mode, st.Uid, st.Gid, st.Mtim.Nano(), st.Nlink, content, attrs(t, path))
}

func attrs(t *testing.T, path string) string {
	t.Helper()
	d, err := durable.Disk{}.OpenDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	found, err := d.Xattrs(filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, name := range slices.Sorted(maps.Keys(found)) {
		out += fmt.Sprintf(" %s=%q", name, found[name])
	}
	return out
}
