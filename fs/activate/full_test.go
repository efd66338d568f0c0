package activate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/durable/faults"
)

// TestBackOnAFullDisk: what was swapped while there was space goes back when there
// is none, neither blocks nor inodes.
func TestBackOnAFullDisk(t *testing.T) {
	kinds := map[string]func(*testing.T, string){
		"tmpfs": func(t *testing.T, dir string) { mountSmall(t, "tmpfs", dir, "size=1m,nr_inodes=64") },
		"ext4":  mountExt4,
	}
	cases := map[string]func(b *bench){
		"an order": func(b *bench) {
			b.order(2)
			b.swap("B", "A")
			fillUp(b.t, b.dir)
			b.takeBack("A", "B")
			b.fenced("B")
		},
		"an order that did not come through": func(b *bench) {
			fillUp(b.t, b.dir)
			b.order(2)
			if _, err := Swap(b.link, b.dir+"/B", b.opt); !errors.Is(err, unix.ENOSPC) {
				b.t.Fatalf("a new link on a full disk: %v", err)
			}
			b.takeBack("A", "A")
			b.fenced("B")
		},
		"by hand": func(b *bench) {
			b.swap("B", "A")
			fillUp(b.t, b.dir)
			b.rollback("A", "B")
			b.rollback("B", "A")
			b.swap("A", "B")
		},
	}
	for kind, mount := range kinds {
		for name, do := range cases {
			t.Run(kind+", "+name, func(t *testing.T) {
				b := newBench(t)
				mount(t, b.dir)
				must(t, os.Mkdir(b.dir+"/A", 0o755), os.Mkdir(b.dir+"/B", 0o755))
				b.order(1)
				b.swap("A", "")
				b.order(0)
				do(b)
			})
		}
	}
}

// TestTakeBackKilled: a TakeBack that is killed before any change finishes the job
// when it is made again, and the link leads to the one or the other meanwhile.
func TestTakeBackKilled(t *testing.T) {
	takeBack := turn{"A", func(link string, opt Options) error {
		opt.Epoch = 7
		now, _, err := TakeBack(link, opt)
		if err == nil && filepath.Base(now) != "A" {
			err = fmt.Errorf("it leads to %s", now)
		}
		return err
	}}
	job := takeBack.job()
	job.Prepare = func(t *testing.T, dir string) {
		for _, r := range []string{"A", "B", "C"} {
			must(t, os.Mkdir(dir+"/"+r, 0o755), os.WriteFile(dir+"/"+r+"/file", []byte(r), 0o644))
		}
		opt := options(dir, durable.Disk{})
		must(t, swapTo("A").act(dir+"/current", opt))
		opt.Epoch = 7
		must(t, swapTo("B").act(dir+"/current", opt))
	}
	faults.Kill(t, job)
}

func mountSmall(t *testing.T, kind, dir, opts string) {
	t.Helper()
	if err := unix.Mount("none", dir, kind, 0, opts); err != nil {
		t.Skipf("SKIPPED: no mount: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

func mountExt4(t *testing.T, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: not root")
	}
	image := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(image, nil, 0o600), os.Truncate(image, 8<<20))
	for _, words := range [][]string{
		{"mkfs.ext4", "-q", "-m", "0", "-I", "128", "-N", "64", image}, // no block of root's own, no link within an inode
		{"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: no ext4 on a loop device: %v: %s", err, out)
		}
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

// fillUp takes the last byte and the last inode.
func fillUp(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(dir + "/filler")
	must(t, err)
	defer f.Close()
	for n := 1 << 16; n > 0; {
		if _, err := f.Write(make([]byte, n)); err != nil {
			n /= 2
		}
	}
	for i := range 1000 {
		if err := os.Symlink("x", fmt.Sprint(dir, "/", i)); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the disk does not fill up")
}
