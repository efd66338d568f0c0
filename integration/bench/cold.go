package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dcfs/integration/lab"
)

func init() {
	register("cold", "reading a mount that has nothing yet, over links with a rate, beside btfs", benchCold)
}

const (
	coldLimit   = 20 * time.Second // for what a program does to one mount
	coldBig     = 512 << 20        // bytes of the big file
	coldProgram = 50 << 20         // bytes of data in the program
	coldSmall   = 2000             // small files
	coldReads   = 100              // pages that one reader reads
	coldReaders = 64
	coldEach    = 4 // pages that each of the many readers reads
	coldSeconds = 5 // that reading from the start to the end takes at the link's rate
	// coldHit is how long a read may take of what is here; others had to wait.
	coldHit = 200 * time.Microsecond
)

func benchCold(e *env) error {
	if os.Geteuid() != 0 {
		e.out.note("not root: nothing is mounted")
		return nil
	}
	if err := e.makeCold(); err != nil {
		return err
	}
	p, _, err := e.publish(e.path("cold"), "cold", e.path("state-cold"))
	if err != nil {
		return err
	}
	var out []figure
	for _, mbit := range e.links {
		err := e.inLab(func(l *lab.Lab) error {
			c, err := e.newCold(l, mbit, p.PieceLength)
			if err != nil {
				return err
			}
			f, err := c.all()
			out = append(out, f...)
			return err
		}, "origin", "host")
		if err != nil {
			return fmt.Errorf("%d Mbit/s: %w", mbit, err)
		}
	}
	e.out.figures(out)
	return nil
}

// makeCold makes the tree: a big file, small ones, and a program whose image is
// much larger than what it needs to start.
func (e *env) makeCold() error {
	if err := makeTree(e.path("cold", "small"), coldSmall, coldSize); err != nil {
		return err
	}
	if err := makeNoise(e.path("cold", "big"), coldBig, 1); err != nil {
		return err
	}
	src := e.path("program")
	if err := os.MkdirAll(src, 0o755); err != nil {
		return err
	}
	if err := makeNoise(filepath.Join(src, "data"), coldProgram, 2); err != nil {
		return err
	}
	text := "package main\n\nimport _ \"embed\"\n\n//go:embed data\nvar data string\n\nfunc main() { println(len(data), data[len(data)/2]) }\n"
	if err := os.WriteFile(filepath.Join(src, "main.go"), []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(src, "go.mod"), []byte("module program\n\ngo 1.20\n"), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(e.ctx, "go", "build", "-o", e.path("cold", "program"), ".")
	cmd.Dir = src
	cmd.Env = append(clean(os.Environ()), "CGO_ENABLED=0", "GOFLAGS=", "GOCACHE="+e.path("program-cache"))
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, strings.TrimSpace(string(text)))
	}
	return os.RemoveAll(e.path("program-cache"))
}

// coldSize is the size of small file i.
func coldSize(i int) int { return 20 + i*977%16384 }

// makeNoise makes a file that is the same each time and that nothing compresses.
func makeNoise(path string, size int64, seed byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{seed}), size)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// all measures the cases at one rate.
func (c *coldLab) all() (out []figure, err error) {
	for _, k := range []struct {
		name string
		run  func() ([]figure, error)
	}{
		{"sequential", c.sequential}, {"small", c.small}, {"random", c.random},
		{"many", c.many}, {"prefetch", c.underPrefetch}, {"program", c.program},
	} {
		if !c.e.cases.MatchString(k.name) {
			continue
		}
		more, err := k.run()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		out = append(out, more...)
	}
	return out, nil
}

// beside does one work to fresh mounts of dcfs and of btfs in turns, and gives
// how many bytes a second that is, as a part of the link's rate.
func (c *coldLab) beside(what, goal string, bytes int64, w func(root string) (float64, error)) ([]figure, error) {
	rivals := []rival{{"dcfs", func() (float64, error) { return c.dcfs(w) }}}
	if c.btfs != "" {
		rivals = append(rivals, rival{"btfs", func() (float64, error) { return c.stranger(what, w) }})
	}
	medians, _, err := c.e.turns(rivals)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	var out []figure
	for _, r := range rivals {
		out = append(out, figure{Case: c.name + r.name, What: what, Value: medians[r.name], Unit: "s",
			Ratio: float64(bytes) / medians[r.name] / c.rate, Beside: "the link's rate", Goal: goal})
		goal = ""
		c.e.out.note("%s%s, %s: %s s", c.name, r.name, what, short(medians[r.name]))
	}
	return out, nil
}

func (c *coldLab) sequential() ([]figure, error) {
	bytes := min(int64(c.rate*coldSeconds), coldBig)
	return c.beside(fmt.Sprintf("%d MiB in order", bytes>>20), ">= 0.9", bytes, func(root string) (seconds float64, err error) {
		f, err := os.Open(filepath.Join(root, "big"))
		if err != nil {
			return 0, err
		}
		defer f.Close()
		before := c.host.Traffic().Received
		defer func() {
			came := c.host.Traffic().Received - before
			c.e.out.note("%s%d MiB read in %s s, %d MiB came over the link: %.2f of its rate", c.name, bytes>>20, short(seconds), came>>20,
				float64(came)/seconds/c.rate)
		}()
		return c.e.cost(func() error {
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(f, bytes), make([]byte, 1<<17))
			return err
		})
	})
}

func (c *coldLab) small() ([]figure, error) {
	var bytes int64
	for i := range coldSmall {
		bytes += int64(coldSize(i))
	}
	return c.beside(fmt.Sprintf("%d small files", coldSmall), "", bytes, c.e.smallFiles("small", coldSmall))
}

// random is one reader of pages, each of them in a piece that is not here.
func (c *coldLab) random() ([]figure, error) {
	took, err := c.alone()
	if err != nil {
		return nil, err
	}
	what := "4 KiB reads, 1 reader"
	out := []figure{c.latency("dcfs", what, took, 50, "<= 1.5"), c.latency("dcfs", what, took, 99, "")}
	if c.btfs == "" {
		return out, nil
	}
	took = nil
	_, err = c.stranger(what, func(root string) (float64, error) {
		t, err := readPages(root, c.places()[:coldReads])
		took = t
		return 0, err
	})
	if len(took) > 0 {
		out = append(out, c.latency("btfs", what, took, 50, ""), c.latency("btfs", what, took, 99, ""))
	}
	return out, err
}

// alone reads pages while nothing else comes.
func (c *coldLab) alone() ([]time.Duration, error) {
	if len(c.idle) > 0 {
		return c.idle, nil
	}
	for range c.e.rounds {
		_, err := c.dcfs(func(root string) (float64, error) {
			t, err := readPages(root, c.places()[:coldReads])
			c.idle = append(c.idle, t...)
			return 0, err
		}, "--lazy")
		if err != nil {
			return nil, err
		}
	}
	return c.idle, nil
}

// latency is a percentile beside a round trip and one piece at the link's rate.
func (c *coldLab) latency(who, what string, took []time.Duration, percent int, goal string) figure {
	v := percentile(took, percent)
	c.e.out.note("%s%s: %s, p%d of %d: %s", c.name, who, what, percent, len(took), v.Round(10*time.Microsecond))
	return figure{Case: c.name + who, What: fmt.Sprintf("%s: p%d", what, percent), Value: v.Seconds() * 1000, Unit: "ms",
		Ratio: float64(v) / float64(c.best), Beside: "round trip + piece", Goal: goal}
}

// many is many readers of pages at once.
func (c *coldLab) many() ([]figure, error) {
	bytes := int64(coldReaders*coldEach) * c.piece
	var all []time.Duration
	work := func(root string) (float64, error) {
		places := c.places()
		took := make([][]time.Duration, coldReaders)
		seconds, err := c.e.cost(func() error {
			var group errgroup.Group
			for i := range took {
				group.Go(func() (err error) {
					took[i], err = readPages(root, places[i*coldEach:(i+1)*coldEach])
					return err
				})
			}
			return group.Wait()
		})
		all = append(all, slices.Concat(took...)...)
		return seconds, err
	}
	medians, _, err := c.e.turns([]rival{{"dcfs", func() (float64, error) { return c.dcfs(work, "--lazy") }}})
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("4 KiB reads, %d readers", coldReaders)
	c.e.out.note("%s%s: %d pieces in %s s", c.name, what, coldReaders*coldEach, short(medians["dcfs"]))
	return []figure{
		{Case: c.name + "dcfs", What: what + ": all their pieces", Value: medians["dcfs"], Unit: "s",
			Ratio: float64(bytes) / medians["dcfs"] / c.rate, Beside: "the link's rate", Goal: ">= 0.9"},
		c.latency("dcfs", what, all, 50, ""),
	}, nil
}

// underPrefetch is one reader of pages while the rest of the release comes.
func (c *coldLab) underPrefetch() ([]figure, error) {
	var took []time.Duration
	for range c.e.rounds {
		_, err := c.dcfs(func(root string) (float64, error) {
			if err := c.saturated(); err != nil {
				return 0, err
			}
			t, err := readPages(root, c.places()[:coldReads])
			took = append(took, t...)
			return 0, err
		})
		if err != nil {
			return nil, err
		}
	}
	took = slices.DeleteFunc(took, func(d time.Duration) bool { return d < coldHit })
	if len(took) == 0 {
		return nil, fmt.Errorf("the prefetch was done before anything was read")
	}
	idle, err := c.alone()
	if err != nil {
		return nil, err
	}
	what := "4 KiB reads, 1 reader, while all else comes"
	f := c.latency("dcfs", what, took, 99, "<= 2")
	f.Ratio, f.Beside = float64(percentile(took, 99))/float64(percentile(idle, 99)), "p99 without prefetch"
	return []figure{c.latency("dcfs", what, took, 50, ""), f}, nil
}

// program starts the program from the mount.
func (c *coldLab) program() ([]figure, error) {
	var bytes []float64
	start := func(root string) (float64, error) {
		before := c.host.Traffic().Received
		u, err := c.e.command(filepath.Join(root, "program"))
		bytes = append(bytes, float64(c.host.Traffic().Received-before)/(1<<20))
		return u.wall, err
	}
	medians, _, err := c.e.turns([]rival{
		{"prefetch", func() (float64, error) { return c.dcfs(start) }},
		{"lazy", func() (float64, error) { bytes = bytes[:len(bytes)/2]; return c.dcfs(start, "--lazy") }},
	})
	if err != nil {
		return nil, err
	}
	native, err := c.e.command(c.e.path("cold", "program"))
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("a program of %d MiB starts and ends", coldProgram>>20)
	c.e.out.note("%s%s: %s s, without prefetch %s s, native %s s; %s MiB came", c.name, what,
		short(medians["prefetch"]), short(medians["lazy"]), short(native.wall), short(median(bytes)))
	return []figure{
		{Case: c.name + "dcfs", What: what, Value: medians["prefetch"], Unit: "s"},
		{Case: c.name + "dcfs", What: what + ", without prefetch", Value: medians["lazy"], Unit: "s"},
		{Case: c.name + "dcfs", What: what + ", without prefetch: what came", Value: median(bytes), Unit: "MiB",
			Ratio: median(bytes) / (coldProgram >> 20), Beside: "its size", Goal: "< 1"},
	}, nil
}

// places are offsets of the big file, each in another piece, in an order of
// chance that is the same each time.
func (c *coldLab) places() []int64 {
	r := rand.New(rand.NewPCG(1, 2))
	var out []int64
	for _, k := range r.Perm(int(coldBig/c.piece) - 1) { // the last one is here: see connected
		out = append(out, int64(k)*c.piece+r.Int64N(c.piece/4096)*4096)
	}
	return out
}

// readPages reads pages of the big file and says how long each took.
func readPages(root string, places []int64) (took []time.Duration, err error) {
	fd, err := unix.Open(filepath.Join(root, "big"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM)
	p := make([]byte, 4096)
	for _, off := range places {
		start := time.Now()
		if _, err := unix.Pread(fd, p, off); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// percentile returns the smallest value that so many percent do not exceed.
func percentile(all []time.Duration, percent int) time.Duration {
	v := slices.Sorted(slices.Values(all))
	return v[max((len(v)*percent+99)/100-1, 0)]
}
