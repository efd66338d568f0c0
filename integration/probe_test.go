package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// pauses is what probe found: how long the kernel had to wait for an answer,
// where that was long, in milliseconds, by what was asked.
type pauses struct {
	MS     map[string][]float64
	Errors []string
}

// longPause is what counts: without a kill, an answer takes less than that
// unless the machine is busy.
const longPause = 10 * time.Millisecond

// probe asks the tree args[0] all the time, until stdin ends, what the kernel
// does not know by itself: the room in the filesystem, and a page of the file
// args[1], by read and by a mapping. It prints "ready" once it has seen them.
func probe(args []string) error {
	f, err := os.Open(filepath.Join(args[0], args[1]))
	if err != nil {
		return err
	}
	defer f.Close()
	want, got := make([]byte, 4096), make([]byte, 4096)
	if _, err := f.ReadAt(want, 0); err != nil {
		return err
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	end := make(chan struct{})
	go func() { bufio.NewScanner(os.Stdin).Scan(); close(end) }()
	found := pauses{MS: map[string][]float64{}}
	fmt.Println("ready")
	for {
		select {
		case <-end:
			return json.NewEncoder(os.Stdout).Encode(found)
		default:
		}
		found.time("statfs", func() error { return unix.Fstatfs(int(f.Fd()), new(unix.Statfs_t)) })
		_ = unix.Madvise(mapped, unix.MADV_DONTNEED)
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		found.time("fault", func() error { return same(mapped, want) })
		_ = unix.Madvise(mapped, unix.MADV_DONTNEED)
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		found.time("read", func() error {
			if _, err := f.ReadAt(got, 0); err != nil {
				return err
			}
			return same(got, want)
		})
		time.Sleep(2 * time.Millisecond)
	}
}

func same(got, want []byte) error {
	if !bytes.Equal(got, want) {
		return errors.New("other bytes")
	}
	return nil
}

func (p *pauses) time(what string, ask func() error) {
	start := time.Now()
	err := ask()
	d := time.Since(start)
	if err != nil && len(p.Errors) < 20 {
		p.Errors = append(p.Errors, fmt.Sprintf("%s %s: %v after %s", start.Format("15:04:05.000"), what, err, d))
	}
	if d > longPause {
		p.MS[what] = append(p.MS[what], float64(d.Microseconds())/1000)
	}
}

// summary is the pauses as a text. One kill makes a pause for one of the
// questions, whichever was asked just then.
func (p *pauses) summary() string {
	var all []float64
	for _, ms := range p.MS {
		all = append(all, ms...)
	}
	if len(all) == 0 {
		return "no pause"
	}
	slices.Sort(all)
	at := func(part float64) float64 { return all[int(part*float64(len(all)-1))] }
	return fmt.Sprintf("%d pauses of more than %s: p50 %.0f ms, p99 %.0f ms, the longest %.0f ms", len(all), longPause, at(.5), at(.99), at(1))
}
