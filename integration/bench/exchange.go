package main

import (
	"fmt"
	"net/url"
	"os"
)

func init() {
	register("exchange", "the metainfo of many files through HTTP and through peers (BEP 9), to the mounted tree", benchExchange)
}

func benchExchange(e *env) error {
	if os.Geteuid() != 0 {
		e.out.note("not root: nothing is mounted")
		return nil
	}
	counts := []int{20_000, 100_000}
	if e.full {
		counts = append(counts, 200_000) // more than peers exchange
	}
	var out []figure
	for _, count := range counts {
		f, err := e.exchange(count)
		if err != nil {
			return err
		}
		out = append(out, f...)
	}
	e.out.figures(out)
	return nil
}

func (e *env) exchange(count int) ([]figure, error) {
	name, version := fmt.Sprintf("%d files", count), fmt.Sprintf("n%d", count)
	if err := makeTree(e.path(version), count, func(int) int { return 20 }); err != nil {
		return nil, err
	}
	state := e.path("state-" + version)
	p, _, err := e.publish(e.path(version), version, state, "--out", e.path(version+".torrent"))
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(e.path(version + ".torrent"))
	if err != nil {
		return nil, err
	}
	o, err := e.origin(state)
	if err != nil {
		return nil, err
	}
	defer o.stop()
	if err := e.served(o, version); err != nil {
		return nil, err
	}
	mounted := func(word string, more ...string) func() (float64, error) {
		return func() (float64, error) {
			d, _, seconds, err := e.mount(word, append(more, "--down", "64MiB")...)
			if err == nil {
				d.stop()
			}
			return seconds, err
		}
	}
	magnet := "magnet:?xt=urn:btih:" + p.Infohash + "&dn=" + version + "&tr=" + url.QueryEscape(o.url+"/announce")
	rivals := []rival{{"HTTP", mounted(version, "--origin", o.url)}}
	tooLarge := info.Size() > 16<<20
	if tooLarge {
		_, err := mounted(magnet, "--wait", "10s")()
		e.out.note("%s: the metainfo has %d bytes; through a magnet: %v", name, info.Size(), err)
	} else {
		rivals = append(rivals, rival{"BEP 9", mounted(magnet)})
	}
	medians, ratio, err := e.turns(rivals)
	if err != nil {
		return nil, err
	}
	out := []figure{
		{Case: name, What: "metainfo", Value: float64(info.Size()) / (1 << 20), Unit: "MiB"},
		{Case: name, What: "mounted through HTTP", Value: medians["HTTP"], Unit: "s"},
	}
	if !tooLarge {
		out = append(out, figure{Case: name, What: "mounted through BEP 9", Value: medians["BEP 9"], Unit: "s",
			Ratio: ratio("BEP 9", "HTTP"), Beside: "HTTP"})
	}
	return out, nil
}
