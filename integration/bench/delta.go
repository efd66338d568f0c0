package main

import (
	"encoding/json"
	"fmt"
	"os"

	"dcfs/integration/delta"
)

func init() {
	register("delta", "a release and the next: what a host that has the first fetches of the second", benchDelta)
}

func benchDelta(e *env) error {
	e.out.note("Goals are for the bytes of the pieces that hold a change: a host can verify no less than a piece.")
	var out []figure
	for i, c := range delta.Cases {
		f, err := e.delta(c, e.path(fmt.Sprint("case", i)))
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		out = append(out, f...)
	}
	e.out.figures(out)
	return nil
}

// fetched is what dcfs fetch --json says at its end.
type fetched struct {
	State   string `json:"state"`
	Bytes   int64  `json:"bytes"`
	Fetched int64  `json:"bytes_fetched"`
	Reused  int64  `json:"bytes_reused"`
}

// delta measures one case below dir, on one origin and one host.
func (e *env) delta(c delta.Case, dir string) ([]figure, error) {
	source, torrent := dir+"/source", dir+"/v2.torrent"
	if err := os.MkdirAll(source, 0o755); err != nil {
		return nil, err
	}
	if err := c.Tree(source); err != nil {
		return nil, err
	}
	if _, _, err := e.publish(source, "v1", dir+"/state"); err != nil {
		return nil, err
	}
	changes, err := c.Change(source)
	if err != nil {
		return nil, err
	}
	if _, _, err := e.publish(source, "v2", dir+"/state", "--out", torrent); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(torrent)
	if err != nil {
		return nil, err
	}
	least, err := delta.Of(raw, changes)
	if err != nil {
		return nil, err
	}
	o, err := e.origin(dir + "/state")
	if err != nil {
		return nil, err
	}
	defer o.stop()
	if _, _, err := e.fetch("v1", dir, o); err != nil {
		return nil, err
	}
	f, seconds, err := e.fetch("v2", dir, o)
	if err != nil {
		return nil, err
	}
	return deltaFigures(c, least, f, seconds), nil
}

// fetch brings a release to dir, on a host whose state is there, too.
func (e *env) fetch(version, dir string, o *service) (f fetched, seconds float64, err error) {
	u, err := e.command(e.dcfs, "fetch", version, dir+"/"+version, "--origin", o.url, "--state", dir+"/host", "--run", dir+"/run",
		"--insecure-unsigned", "--peer-listen", "127.0.0.1:0", "--linger", "0s", "--json", "--quiet")
	if err != nil {
		return f, 0, err
	}
	if err = json.Unmarshal(u.stdout, &f); err == nil && f.State != "done" {
		err = fmt.Errorf("fetch %s ended as %q", version, f.State)
	}
	return f, u.wall, err
}

// deltaFigures holds what was fetched beside what was changed, to the byte, in
// whole files and in whole pieces.
func deltaFigures(c delta.Case, least delta.Least, f fetched, seconds float64) []figure {
	kib := func(n int64) float64 { return float64(n) / 1024 }
	beside := func(n int64, what string) figure {
		r := figure{Case: c.Name, What: "fetched", Value: kib(f.Fetched), Unit: "KiB"}
		r.Beside = fmt.Sprintf("%s KiB %s", short(kib(n)), what)
		if n > 0 {
			r.Ratio = float64(f.Fetched) / float64(n)
		}
		return r
	}
	pieces := beside(least.Pieces, fmt.Sprintf("in changed pieces of %d KiB", least.PieceLength>>10))
	pieces.Goal = fmt.Sprintf("<= %.1f", c.Limit)
	return []figure{
		pieces,
		beside(least.Files, "in changed files"),
		beside(least.Bytes, "changed"),
		{Case: c.Name, What: "reused", Value: kib(f.Reused), Unit: "KiB",
			Ratio: float64(f.Reused) / float64(f.Bytes), Beside: fmt.Sprintf("%s KiB release", short(kib(f.Bytes)))},
		{Case: c.Name, What: "fetch of the second", Value: seconds, Unit: "s"},
	}
}
