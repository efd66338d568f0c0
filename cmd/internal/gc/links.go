package gc

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"dcfs/fs/activate"
	"dcfs/fs/durable"
)

// link is a symlink that may lead to a release.
type link struct {
	path     string
	targets  []string // where it leads: as it is written, and resolved to the end
	pending  []string // where it may lead in the next instant
	previous string   // where a rollback would lead it
}

func anyWithin(targets []string, path string) bool {
	return slices.ContainsFunc(targets, func(t string) bool { return within(t, path) })
}

// findLinks reads the links that were activated on this host and all symlinks
// in the directories.
func findLinks(state string, dirs []string) ([]link, error) {
	known, err := activate.Links(state)
	if err != nil {
		return nil, err
	}
	var out []link
	seen := map[string]bool{}
	for _, k := range known {
		seen[k.Path] = true
		// Beside it stands the way back, which is previous already.
		seen[filepath.Join(filepath.Dir(k.Path), durable.SwapName(filepath.Base(k.Path)))] = true
		l := link{path: k.Path, targets: ends(k.Now)}
		for _, to := range k.Pending {
			l.pending = append(l.pending, ends(to)...)
		}
		if to := ends(k.Previous); len(to) > 0 {
			l.previous = to[len(to)-1]
		}
		out = append(out, l)
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if e.Type() != fs.ModeSymlink || seen[path] {
				continue
			}
			seen[path] = true
			to, err := os.Readlink(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if !filepath.IsAbs(to) {
				to = filepath.Join(dir, to)
			}
			out = append(out, link{path: path, targets: ends(to)})
		}
	}
	return out, nil
}

// ends are the places that a target names: itself, with its parents resolved,
// and what it comes to when each symlink is followed, as far as that is there.
func ends(target string) (out []string) {
	if target == "" {
		return nil
	}
	out = append(out, filepath.Clean(target))
	if p, err := durable.Resolve(target); err == nil {
		out = append(out, p)
	}
	if p, err := filepath.EvalSymlinks(target); err == nil {
		out = append(out, p)
	}
	return out
}
