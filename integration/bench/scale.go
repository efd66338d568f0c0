package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

func init() {
	register("scale", "a release of very many files: publishing, metainfo, mount", benchScale)
}

// makeTree makes count files of size(i) bytes below top, 200 to a directory.
func makeTree(top string, count int, size func(i int) int) error {
	var group errgroup.Group
	group.SetLimit(4)
	const each = 200
	for d := range (count + each - 1) / each {
		group.Go(func() error {
			dir := filepath.Join(top, fmt.Sprintf("part-%02d", d/100), fmt.Sprintf("module-%04d", d))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			for i := d * each; i < min((d+1)*each, count); i++ {
				data := make([]byte, max(size(i), 20))
				copy(data, strconv.Itoa(i)+"\n")
				name := fmt.Sprintf("file_%08x.go", uint32(i)*2654435761)
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func benchScale(e *env) error {
	count := 50_000
	if e.full {
		count = 500_000
	}
	name := fmt.Sprintf("%d files", count)
	made := time.Now()
	if err := makeTree(e.path("tree"), count, func(int) int { return 20 }); err != nil {
		return err
	}
	e.out.note("making the files took %.1f s", time.Since(made).Seconds())
	state := e.path("state")
	_, u, err := e.publish(e.path("tree"), "many", state, "--out", e.path("many.torrent"))
	if err != nil {
		return err
	}
	info, err := os.Stat(e.path("many.torrent"))
	if err != nil {
		return err
	}
	out := []figure{
		{Case: name, What: "publish", Value: u.wall, Unit: "s"},
		{Case: name, What: "publish, processor time", Value: u.cpu, Unit: "s"},
		{Case: name, What: "publish, peak RSS", Value: float64(u.peakKiB) / 1024, Unit: "MiB"},
		{Case: name, What: "metainfo", Value: float64(info.Size()) / (1 << 20), Unit: "MiB"},
		{Case: name, What: "metainfo per file", Value: float64(info.Size()) / float64(count), Unit: "B"},
	}
	o, err := e.origin(state)
	if err != nil {
		return err
	}
	defer o.stop()
	if err := e.served(o, "many"); err != nil {
		return err
	}
	out = append(out, figure{Case: name, What: "origin, RssAnon", Value: float64(o.memory("RssAnon")) / 1024, Unit: "MiB"})
	if os.Geteuid() != 0 {
		e.out.note("not root: nothing is mounted")
	} else if out, err = e.mountMany(o, name, out); err != nil {
		return err
	}
	e.out.figures(out)
	return nil
}

// served waits until an origin seeds a release.
func (e *env) served(o *service, version string) error {
	return o.until(e.ctx, time.Minute, func() bool {
		ctx, cancel := context.WithTimeout(e.ctx, time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.url+"/v1/releases/"+version+".torrent", nil)
		if err != nil {
			return false
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return err == nil && res.StatusCode == http.StatusOK
	})
}

// mountMany mounts the release several times, walks it, and looks at the
// memory. RssAnon leaves out the pages of files (the program's text and its
// metainfo, which the kernel can take back); the rate limit leaves no payload
// in the cache.
func (e *env) mountMany(o *service, name string, out []figure) ([]figure, error) {
	var first, cpu, walk, anon, rss []float64
	for range e.rounds {
		d, at, seconds, err := e.mount("many", "--origin", o.url, "--down", "1KiB")
		if err != nil {
			return nil, err
		}
		u, err := e.command("find", at)
		if err == nil {
			time.Sleep(2 * time.Second) // garbage of the start is given back meanwhile
			first, cpu, walk = append(first, seconds), append(cpu, d.cpu()), append(walk, u.wall)
			anon, rss = append(anon, float64(d.memory("RssAnon"))/1024), append(rss, float64(d.memory("VmRSS"))/1024)
		}
		d.stop()
		if err != nil {
			return nil, err
		}
	}
	return append(out,
		figure{Case: name, What: "mount to first ls", Value: median(first), Unit: "s", Goal: "<= 1"},
		figure{Case: name, What: "find over all", Value: median(walk), Unit: "s"},
		figure{Case: name, What: "mount, processor time up to here", Value: median(cpu), Unit: "s"},
		figure{Case: name, What: "mount after find, RssAnon", Value: median(anon), Unit: "MiB", Goal: "<= 60"},
		figure{Case: name, What: "mount after find, VmRSS", Value: median(rss), Unit: "MiB"},
	), nil
}
