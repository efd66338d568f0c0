package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

func init() {
	register("memory", "a release ten times the memory budget, over loopback: resident memory, and speed beside a budget that holds it all", benchMemory)
}

// benchMemory fetches one release with a small budget and with a large one, in
// turns. The budgets differ in nothing but whether the disk is needed.
func benchMemory(e *env) error {
	budget := int64(64 << 20)
	if e.full {
		budget = 256 << 20
	}
	size := 10 * budget
	if err := makeFiles(e.path("tree"), size, 32<<20); err != nil {
		return err
	}
	if _, _, err := e.publish(e.path("tree"), "big", e.path("state")); err != nil {
		return err
	}
	o, err := e.origin(e.path("state"))
	if err != nil {
		return err
	}
	defer o.stop()
	if err := e.served(o, "big"); err != nil {
		return err
	}
	peaks := map[string][]float64{}
	fetch := func(name string, cache int64) rival {
		return rival{name, func() (float64, error) {
			seconds, peak, err := e.fetchPeak(o, cache)
			peaks[name] = append(peaks[name], float64(peak)/1024)
			return seconds, err
		}}
	}
	medians, ratio, err := e.turns([]rival{fetch("small", budget), fetch("all", 3*size)})
	if err != nil {
		return err
	}
	mib := float64(size) / (1 << 20)
	name := fmt.Sprintf("%d MiB, budget %d MiB", size>>20, budget>>20)
	e.out.figures([]figure{
		{Case: name, What: "peak RSS", Value: median(peaks["small"]), Unit: "MiB", Goal: fmt.Sprintf("<= %d", budget>>20+100)},
		{Case: name, What: "peak RSS above the budget", Value: median(peaks["small"]) - float64(budget>>20), Unit: "MiB", Goal: "<= 100"},
		{Case: name, What: "goodput", Value: mib / medians["small"], Unit: "MiB/s", Ratio: ratio("all", "small"), Beside: "a budget that holds all"},
		{Case: name, What: "goodput, a budget that holds all", Value: mib / medians["all"], Unit: "MiB/s"},
	})
	return nil
}

// makeFiles fills dir with random files of each bytes, size bytes in all.
func makeFiles(dir string, size, each int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	rng := rand.NewChaCha8([32]byte{7})
	b := make([]byte, each)
	for i := range size / each {
		_, _ = rng.Read(b) // it never fails
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d.bin", i)), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fetchPeak fetches the release once, until the copy stands, and returns the
// seconds and the peak of resident memory in KiB.
func (e *env) fetchPeak(o *service, cache int64) (seconds float64, peak int64, err error) {
	dest := e.path("copy")
	args := []string{"fetch", "big", dest, "--origin", o.url, "--state", e.path("node"), "--run", e.path("run-node"),
		"--insecure-unsigned", "--peer-listen", "127.0.0.1:0", "--linger", "1h", "--cache", fmt.Sprint(cache)}
	start := time.Now()
	d, err := e.start("fetch", args...)
	if err != nil {
		return 0, 0, err
	}
	err = d.until(e.ctx, 10*time.Minute, func() bool {
		_, err := os.Lstat(dest)
		return err == nil
	})
	seconds, peak = time.Since(start).Seconds(), d.memory("VmHWM")
	d.stop()
	if err != nil {
		return 0, 0, err
	}
	for _, dir := range []string{dest, e.path("node")} {
		if err := os.RemoveAll(dir); err != nil {
			return 0, 0, err
		}
	}
	return seconds, peak, nil
}
