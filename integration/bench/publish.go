package main

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"time"
)

func init() {
	register("publish", "hashing and publishing a directory, beside mktorrent, raw hashing and reading", benchPublish)
}

// corpus is a directory to publish.
type corpus struct {
	name string
	dir  string
}

func benchPublish(e *env) error {
	all, err := corpora(e)
	if err != nil {
		return err
	}
	e.out.note("All files are in the page cache when they are read: reading is bounded by memory, not by the disk.")
	e.out.note("hash: publishing again what the store has; publish: with its copy into the store and the sync.")
	var out []figure
	for _, c := range all {
		f, err := c.measure(e)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		out = append(out, f...)
	}
	e.out.figures(out)
	return nil
}

func corpora(e *env) ([]corpus, error) {
	large, small := e.path("large"), e.path("small")
	size, count := int64(1<<30), 20_000
	if e.full {
		size, count = 2<<30, 100_000
	}
	if err := os.Mkdir(large, 0o755); err != nil {
		return nil, err
	}
	if err := randomFile(large+"/model.bin", size); err != nil {
		return nil, err
	}
	if err := makeTree(small, count, func(i int) int { return 512 + i%37*200 }); err != nil {
		return nil, err
	}
	all := []corpus{{fmt.Sprintf("one file of %d MiB", size>>20), large}, {fmt.Sprintf("%d small files", count), small}}
	if out, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		all = append(all, corpus{"GOROOT", lastLine(out)})
	}
	return all, nil
}

func randomFile(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// measure runs the rivals over one directory. Ratios are of throughputs: below
// one is slower than what it is held beside.
func (c corpus) measure(e *env) ([]figure, error) {
	state := e.path("state")
	defer os.RemoveAll(state)
	first, _, err := e.publish(c.dir, "v1", state)
	if err != nil {
		return nil, err
	}
	fresh := e.path("fresh")
	rivals := []rival{
		{"dcfs hash", func() (float64, error) {
			_, u, err := e.publish(c.dir, "v1", state)
			return u.wall, err
		}},
		{"read", func() (float64, error) {
			u, err := e.command("sh", "-c", `find "$1" -type f -print0 | xargs -0 cat >/dev/null`, "sh", c.dir)
			return u.wall, err
		}},
		{"raw hashing", func() (float64, error) { return rawHashing(first.Bytes), nil }},
		{"dcfs publish", func() (float64, error) {
			_, u, err := e.publish(c.dir, "v1", fresh)
			os.RemoveAll(fresh)
			return u.wall, err
		}},
	}
	if _, err := exec.LookPath("mktorrent"); err == nil {
		rivals = append(rivals, rival{"mktorrent", func() (float64, error) {
			out := e.path("mk.torrent")
			os.Remove(out)
			u, err := e.command("mktorrent", "-t", strconv.Itoa(runtime.NumCPU()),
				"-l", strconv.Itoa(bits.Len64(uint64(first.PieceLength))-1), "-a", "http://127.0.0.1/announce", "-o", out, c.dir)
			return u.wall, err
		}})
	} else {
		e.out.note("mktorrent is not installed: not measured")
	}
	medians, ratio, err := e.turns(rivals)
	if err != nil {
		return nil, err
	}
	return c.figures(first, rivals, medians, ratio), nil
}

// figures turns seconds into throughputs.
func (c corpus) figures(p published, rivals []rival, medians map[string]float64, ratio func(a, b string) float64) []figure {
	mib := float64(p.Bytes) / (1 << 20)
	bound := "raw hashing"
	if medians["read"] > medians[bound] {
		bound = "read"
	}
	name := fmt.Sprintf("%s, %d KiB pieces", c.name, p.PieceLength>>10)
	var out []figure
	for _, r := range rivals {
		f := figure{Case: name, What: r.name, Value: mib / medians[r.name], Unit: "MiB/s"}
		if r.name == "dcfs hash" {
			f.Ratio, f.Beside, f.Goal = ratio(bound, r.name), bound, ">= 0.8"
		}
		out = append(out, f)
	}
	if _, ok := medians["mktorrent"]; ok {
		for _, what := range []string{"dcfs hash", "dcfs publish"} {
			out = append(out, figure{Case: name, What: what, Value: mib / medians[what], Unit: "MiB/s",
				Ratio: ratio("mktorrent", what), Beside: "mktorrent"})
		}
	}
	return out
}

// rawHashing takes SHA-1 and SHA-256 of n bytes of memory on every processor,
// as openssl speed does, and returns the seconds that took.
func rawHashing(n int64) float64 {
	const block = 256 << 10
	workers := int64(runtime.NumCPU())
	var wg sync.WaitGroup
	start := time.Now()
	for w := range workers {
		wg.Go(func() {
			buf := make([]byte, block)
			a, b := sha1.New(), sha256.New()
			for left := n/workers + (w+1)/workers*(n%workers); left > 0; left -= block {
				part := buf[:min(left, block)]
				a.Write(part)
				b.Write(part)
			}
		})
	}
	wg.Wait()
	return time.Since(start).Seconds()
}
