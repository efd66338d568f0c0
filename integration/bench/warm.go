package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	register("read", "reading a mount beside the copy that it became: warm, before and after the handover", benchRead)
}

// readSizes are how much is read.
type readSizes struct {
	small int   // files
	big   int64 // bytes of the one big file
	pages int   // read at random from it
}

func (e *env) readSizes() readSizes {
	s := readSizes{small: 20_000, big: 256 << 20, pages: 200_000}
	if e.full {
		s.big = 1 << 30
	}
	return s
}

func benchRead(e *env) error {
	if os.Geteuid() != 0 {
		e.out.note("not root: nothing is mounted")
		return nil
	}
	sizes := e.readSizes()
	if err := e.makeRead(sizes); err != nil {
		return err
	}
	o, err := e.serve("read")
	if err != nil {
		return err
	}
	defer o.stop()
	if e.byCPU {
		e.out.note("seconds of processor time")
	}
	warm, err := e.warm(o, sizes)
	if err != nil {
		return err
	}
	if e.full {
		walk, err := e.walkMany()
		if err != nil {
			return err
		}
		warm = append(warm, walk...)
	}
	e.out.figures(warm)
	return nil
}

// makeRead makes the tree that is read: small files, a big one and a toolchain.
func (e *env) makeRead(s readSizes) error {
	if err := makeTree(e.path("read", "small"), s.small, func(i int) int { return i % 8192 }); err != nil {
		return err
	}
	f, err := os.Create(e.path("read", "big"))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{1}), s.big); err != nil {
		return err
	}
	root, err := goroot()
	if err != nil {
		return err
	}
	_, err = e.command("cp", "-a", root, e.path("read", "go"))
	return err
}

// serve publishes the directory of that name and seeds it.
func (e *env) serve(name string) (*service, error) {
	state := e.path("state-" + name)
	if _, _, err := e.publish(e.path(name), name, state); err != nil {
		return nil, err
	}
	o, err := e.origin(state)
	if err != nil {
		return nil, err
	}
	if err := e.served(o, name); err != nil {
		o.stop()
		return nil, err
	}
	return o, nil
}

// whole mounts a release and returns once every byte is here and the copy
// stands, whose path it returns.
func (e *env) whole(o *service, name, atEnd string) (d *daemon, mount, dest string, err error) {
	mount, dest = e.path("mnt-"+atEnd), e.path("dest-"+name)
	if err := os.MkdirAll(mount, 0o755); err != nil {
		return nil, "", "", err
	}
	d, err = e.start("mount-"+atEnd, "mount", name, mount, "--origin", o.url, "--dest", dest, "--state", e.path("host-"+name),
		"--run", e.path("run-"+atEnd), "--insecure-unsigned", "--peer-listen", "127.0.0.1:0", "--linger", "2h", "--at-end", atEnd)
	if err != nil {
		return nil, "", "", err
	}
	err = d.until(e.ctx, 5*time.Minute, func() bool {
		log, _ := os.ReadFile(d.log)
		return bytes.Contains(log, []byte("state=lingering"))
	})
	if err != nil {
		d.stop()
	}
	return d, mount, dest, err
}

// cost is how many seconds f took, of the clock or of the processor. While it
// runs, this process does nothing else.
func (e *env) cost(f func() error) (float64, error) {
	start, cpu := time.Now(), ownCPU()
	err := f()
	if e.byCPU {
		return ownCPU() - cpu, err
	}
	return time.Since(start).Seconds(), err
}

// ownCPU is the processor time of this process and of the children it waited for.
func ownCPU() (seconds float64) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			seconds += time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
		}
	}
	return seconds
}

// work is something that is done to a tree; it returns seconds.
type work struct {
	what string
	goal string
	run  func(root string) (float64, error)
}

func (e *env) warm(o *service, s readSizes) ([]figure, error) {
	d, mount, dest, err := e.whole(o, "read", "unmount")
	if err != nil {
		return nil, err
	}
	defer d.stop()
	random := fmt.Sprintf("%d random reads of 4 KiB", s.pages)
	all := []work{
		{fmt.Sprintf("%d small files: open, read, close", s.small), "<= 1.2", e.smallFiles("small", s.small)},
		{"find", "<= 1.1", func(root string) (float64, error) {
			return e.cost(func() error { _, err := e.command("find", root, "-type", "f"); return err })
		}},
		{random, "<= 1.2", e.pages(s)},
		{"sequential, 10 times", "<= 1.5", e.sequential(10)},
	}
	out, err := e.beside("warm, FUSE", dest, mount, all)
	if err != nil {
		return nil, err
	}
	// The same release again: its copy stands, so the path turns native at once.
	h, native, _, err := e.whole(o, "read", "handover")
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Unmount(native, unix.MNT_DETACH) }()
	defer h.stop()
	after, err := e.beside("warm, after the handover", dest, native, []work{{"sequential, 10 times", "<= 1.02", e.sequential(10)}, {random, "", e.pages(s)}})
	if err != nil {
		return nil, err
	}
	build, err := e.beside("warm, FUSE", dest, mount, []work{{"go build, nothing built before", "<= 1.1", e.goBuild}})
	return append(append(out, build...), after...), err
}

// beside does works to the native tree and the mounted one in turns, each once
// before, so that all is in the kernel's caches.
func (e *env) beside(name, native, mount string, works []work) (out []figure, err error) {
	for _, w := range works {
		rivals := []rival{
			{"native", func() (float64, error) { return w.run(native) }},
			{"mount", func() (float64, error) { return w.run(mount) }},
		}
		for _, r := range rivals {
			if _, err := r.run(); err != nil {
				return nil, fmt.Errorf("%s, %s: %w", w.what, r.name, err)
			}
		}
		medians, ratio, err := e.turns(rivals)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.what, err)
		}
		e.out.note("%s, %s: %s s, native %s s, ratio %.2f", name, w.what, short(medians["mount"]), short(medians["native"]), ratio("mount", "native"))
		out = append(out, figure{Case: name, What: w.what, Value: medians["mount"], Unit: "s",
			Ratio: ratio("mount", "native"), Beside: "native", Goal: w.goal})
	}
	return out, nil
}

// smallFiles opens, reads and closes up to so many files below a directory.
func (e *env) smallFiles(dir string, most int) func(root string) (float64, error) {
	return func(root string) (float64, error) {
		var names []string
		err := filepath.WalkDir(filepath.Join(root, dir), func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && len(names) < most {
				names = append(names, p)
			}
			return err
		})
		if err != nil {
			return 0, err
		}
		return e.cost(func() error { return readEach(names) })
	}
}

func readEach(names []string) error {
	buf := make([]byte, 1<<16)
	for _, name := range names {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		_, err = unix.Read(fd, buf)
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// pages reads pages of the big file in an order of chance that is the same each
// time.
func (e *env) pages(s readSizes) func(root string) (float64, error) {
	return func(root string) (float64, error) {
		fd, err := unix.Open(filepath.Join(root, "big"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		r := rand.New(rand.NewPCG(1, 2))
		p := make([]byte, 4096)
		return e.cost(func() error {
			for range s.pages {
				if _, err := unix.Pread(fd, p, r.Int64N(s.big/4096)*4096); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// sequential reads the big file from its start to its end, so many times.
func (e *env) sequential(times int) func(root string) (float64, error) {
	return func(root string) (float64, error) {
		f, err := os.Open(filepath.Join(root, "big"))
		if err != nil {
			return 0, err
		}
		defer f.Close()
		return e.cost(func() error { return readAll(f, times) })
	}
}

func readAll(f *os.File, times int) error {
	buf := make([]byte, 1<<20)
	for times > 0 {
		switch _, err := f.Read(buf); {
		case err == io.EOF:
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return err
			}
			times--
		case err != nil:
			return err
		}
	}
	return nil
}

// goBuild compiles a small program and the standard library below it with the
// toolchain of the tree.
func (e *env) goBuild(root string) (float64, error) {
	dir, err := os.MkdirTemp(e.dir, "build-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	err = os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println() }\n"), 0o644)
	if err != nil {
		return 0, err
	}
	goroot := filepath.Join(root, "go")
	cmd := exec.CommandContext(e.ctx, filepath.Join(goroot, "bin", "go"), "build", "-o", filepath.Join(dir, "out"), "main.go")
	cmd.Dir = dir
	cmd.Env = append(clean(os.Environ()), "GOROOT="+goroot, "GOCACHE="+filepath.Join(dir, "cache"), "GOTOOLCHAIN=local",
		"GO111MODULE=off", "CGO_ENABLED=0", "GOFLAGS=")
	return e.cost(func() error {
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("go build: %w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	})
}

// walkMany walks a release of half a million files, mounted and native.
func (e *env) walkMany() ([]figure, error) {
	if err := makeTree(e.path("many"), 500_000, func(int) int { return 20 }); err != nil {
		return nil, err
	}
	o, err := e.serve("many")
	if err != nil {
		return nil, err
	}
	defer o.stop()
	d, mount, dest, err := e.whole(o, "many", "unmount")
	if err != nil {
		return nil, err
	}
	defer d.stop()
	return e.beside("500,000 files, warm", dest, mount, []work{{"find", "<= 1.1", func(root string) (float64, error) {
		return e.cost(func() error { _, err := e.command("find", root, "-type", "f", "-size", "+1k"); return err })
	}}})
}
