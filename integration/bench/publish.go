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
	register("publish", "hashing and publishing a directory, beside raw hashing, reading, copying, mktorrent and libtorrent", benchPublish)
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
	e.out.note("hash: publishing again what the store has; publish: with its copy into the store and the sync, as cp.")
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
	if root, err := goroot(); err == nil {
		all = append(all, corpus{"GOROOT", root})
	}
	return all, nil
}

// goroot is where Go stands: a large real tree.
func goroot() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	return lastLine(out), err
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
	round := 0
	fresh := func(what string) string { return e.path(fmt.Sprint(what, round)) }
	defer func() { // not between rounds: some filesystems are slow for minutes where files went away
		for round = range round + 1 {
			os.RemoveAll(fresh("store"))
			os.RemoveAll(fresh("copy"))
		}
	}()
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
			_, u, err := e.publish(c.dir, "v1", fresh("store"))
			return u.wall, err
		}},
		{"cp", func() (float64, error) {
			round++ // the last to need it
			u, err := e.command("sh", "-c", `cp -a "$1" "$2" && sync -f "$2"`, "sh", c.dir, fresh("copy"))
			return u.wall, err
		}},
	}
	rivals = append(rivals, c.makers(e, first.PieceLength)...)
	medians, ratio, err := e.turns(rivals)
	if err != nil {
		return nil, err
	}
	return c.figures(first, rivals, medians, ratio), nil
}

// viaLibtorrent makes a torrent with both of BitTorrent's hashes, SHA-1 and
// SHA-256: the nearest to what dcfs takes of the content.
const viaLibtorrent = `
import os, sys, libtorrent as lt
top, length, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
files = lt.file_storage()
lt.add_files(files, top)
torrent = lt.create_torrent(files, piece_size=length)
lt.set_piece_hashes(torrent, os.path.dirname(top))
open(out, "wb").write(lt.bencode(torrent.generate()))
`

// makers are other programs that make a torrent of the directory, as far as
// they are installed.
func (c corpus) makers(e *env, length int64) (out []rival) {
	run := func(name string, args ...string) rival {
		return rival{name, func() (float64, error) {
			os.Remove(e.path("other.torrent"))
			u, err := e.command(args[0], args[1:]...)
			return u.wall, err
		}}
	}
	if _, err := exec.LookPath("mktorrent"); err == nil {
		out = append(out, run("mktorrent", "mktorrent", "-t", strconv.Itoa(runtime.NumCPU()),
			"-l", strconv.Itoa(bits.Len64(uint64(length))-1), "-a", "http://127.0.0.1/announce", "-o", e.path("other.torrent"), c.dir))
	} else {
		e.out.note("mktorrent is not installed: not measured")
	}
	const python = "/usr/bin/python3" // whose packages are the system's
	if exec.Command(python, "-c", "import libtorrent").Run() == nil {
		out = append(out, run("libtorrent", python, "-c", viaLibtorrent, c.dir, strconv.FormatInt(length, 10), e.path("other.torrent")))
	} else {
		e.out.note("libtorrent is not installed for %s: not measured", python)
	}
	return out
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
		switch r.name {
		case "dcfs hash":
			f.Ratio, f.Beside, f.Goal = ratio(bound, r.name), bound, ">= 0.8"
		case "dcfs publish":
			f.Ratio, f.Beside = ratio("cp", r.name), "cp"
		}
		out = append(out, f)
	}
	for _, other := range []string{"mktorrent", "libtorrent"} {
		if _, ok := medians[other]; ok {
			out = append(out, figure{Case: name, What: "dcfs hash", Value: mib / medians["dcfs hash"], Unit: "MiB/s",
				Ratio: ratio(other, "dcfs hash"), Beside: other})
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
