package agent

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"dcfs/cmd/internal/config"
	"dcfs/fs/tree"
	"dcfs/swarm"
)

// webSeeds says where the release is to be had by HTTP. Those of the origins come
// last: their links have enough to do.
func (l *life) webSeeds() swarm.WebSeeds {
	if slices.Equal(l.cfg.WebSeeds, []string{config.NoWebSeed}) {
		return swarm.WebSeeds{}
	}
	dir, name := path.Split(l.rel.Name)
	return swarm.WebSeeds{URLs: seedURLs(l.cfg.WebSeeds, l.rel.WebSeeds, l.origins, dir), Name: name, Parts: l.parts}
}

// seedURLs puts web seeds in the order of asking: those that the operator named,
// those of the metainfo, the origins'.
func seedURLs(named, own, origins []string, dir string) (out []string) {
	var last []string
	for _, o := range origins {
		last = append(last, strings.TrimSuffix(o, "/")+"/data/"+dir)
	}
	for _, u := range slices.Concat(named, own) {
		if !slices.Contains(last, u) && !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	return append(out, last...)
}

// failedWebSeeds says how the web seeds failed that were asked.
func (l *life) failedWebSeeds() (text string) {
	failed := l.swarm.Trouble().WebSeeds
	for _, u := range slices.Sorted(maps.Keys(failed)) {
		text += fmt.Sprintf("; the web seed %s: %v", u, failed[u])
	}
	return text
}

// parts cuts bytes of the payload stream into files.
func (l *life) parts(off, n int64) (out []swarm.Part) {
	for x := range l.rel.Tree.Extents(off, n) {
		p := swarm.Part{Off: x.Offset, N: x.Length}
		if x.File != tree.None {
			p.Path = l.rel.Tree.Path(x.File)
		}
		out = append(out, p)
	}
	return out
}
