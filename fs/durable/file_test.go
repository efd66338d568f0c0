package durable

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A write that the kernel cuts short goes on with the rest; one that was
// interrupted is made again; an error in the middle says how far it came.
func TestWritesGoOn(t *testing.T) {
	for name, c := range map[string]struct {
		errs []error // of the first calls
		n    int
		err  error
	}{
		"plain":               {nil, 9, nil},
		"short":               {[]error{ErrCutShort}, 9, nil},
		"short to the end":    {[]error{ErrCutShort, ErrCutShort, ErrCutShort, ErrCutShort, ErrCutShort}, 9, nil},
		"interrupted":         {[]error{unix.EINTR, unix.EINTR}, 9, nil},
		"short, interrupted":  {[]error{ErrCutShort, unix.EINTR}, 9, nil},
		"short, then no room": {[]error{ErrCutShort, unix.ENOSPC}, 5, unix.ENOSPC},
		"no room":             {[]error{unix.ENOSPC}, 0, unix.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			disk := Disk{Before: func(op, _ string) error {
				if op != "write" {
					return nil
				}
				if calls++; calls <= len(c.errs) {
					return c.errs[calls-1]
				}
				return nil
			}}
			dir := t.TempDir()
			d, err := disk.OpenDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			for _, at := range []bool{false, true} {
				calls = 0
				f, err := d.Open("f", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
				if err != nil {
					t.Fatal(err)
				}
				write := f.Write
				if at {
					write = func(p []byte) (int, error) { return f.WriteAt(p, 0) }
				}
				n, err := write([]byte("123456789"))
				if n != c.n || !errors.Is(err, c.err) {
					t.Errorf("%d, %v; want %d, %v", n, err, c.n, c.err)
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
				if got, err := os.ReadFile(dir + "/f"); err != nil || string(got) != "123456789"[:c.n] {
					t.Errorf("the file holds %q, %v", got, err)
				}
			}
		})
	}
}

// What is mounted below is not removed, whatever it is.
func TestRemoveAllStaysOnItsFilesystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("SKIPPED: mounting needs root")
		return
	}
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/a/m", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", dir+"/a/m", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir+"/a/m", unix.MNT_DETACH) }()
	if err := os.WriteFile(dir+"/a/m/kept", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Disk{}).RemoveAll(dir + "/a"); err == nil {
		t.Error("it went through")
	}
	if _, err := os.Stat(dir + "/a/m/kept"); err != nil {
		t.Errorf("what was mounted: %v", err)
	}
	if err := unix.Unmount(dir+"/a/m", 0); err != nil {
		t.Fatal(err)
	}
	if err := (Disk{}).RemoveAll(dir + "/a"); err != nil {
		t.Error(err)
	}
}
