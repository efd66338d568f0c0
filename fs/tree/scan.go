package tree

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/charlievieth/fastwalk"
)

// ErrUnsupported is wrapped by the error of Scan about an entry that a release
// cannot hold: a FIFO, a socket, a device.
var ErrUnsupported = errors.New("a release cannot hold this")

// ErrChanged is wrapped by every error about an entry that changed after, or
// while, it was scanned.
var ErrChanged = errors.New("changed while it was read")

// ScanOptions says what Scan leaves out.
type ScanOptions struct {
	// Exclude lists globs in the syntax of path.Match. A glob with a slash
	// matches a path from the root, one without matches a last path element
	// anywhere. A slash in front anchors the glob to the top, slashes at the
	// end mean nothing. What lies in an excluded directory is excluded too.
	// The top directory never is.
	Exclude []string
}

// ScanResult is what Scan found. It does not change and is safe for concurrent
// use.
type ScanResult struct {
	// Nodes are sorted by path in byte order, the top directory "." among
	// them. Their Sum is not known.
	Nodes  []Node
	stamps []stamp // one per node
}

// stamp tells one state of a file from another: any change moves ctime, which
// cannot be set at will.
type stamp struct {
	dev, ino     uint64
	ctime, mtime int64
	size         int64
}

func stampOf(st *syscall.Stat_t) stamp {
	return stamp{st.Dev, st.Ino, st.Ctim.Nano(), st.Mtim.Nano(), st.Size}
}

// Check returns an error that wraps ErrChanged unless info, fresh from
// File.Stat or os.Lstat, describes what was scanned at path. Whoever reads a
// file asks before the first byte and after the last. A change of a directory
// is an entry that was added, removed or renamed.
func (r *ScanResult) Check(path string, info fs.FileInfo) error {
	i, ok := slices.BinarySearchFunc(r.Nodes, path, func(n Node, p string) int { return cmp.Compare(n.Path, p) })
	st, isStat := info.Sys().(*syscall.Stat_t)
	if !ok || !isStat || stampOf(st) != r.stamps[i] {
		return fmt.Errorf("%q %w: run again when nothing writes to the directory", path, ErrChanged)
	}
	return nil
}

// Scan reads the directory top, which may itself be reached through a symlink,
// and everything below it with its metadata; contents are read by nobody yet.
// Symlinks are never followed. Of the names of one file that lie in the tree
// the lowest in byte order is the file and the others are links to it. Scan
// reads in parallel; its result does not depend on the order.
func Scan(ctx context.Context, top string, opt ScanOptions) (*ScanResult, error) {
	top, err := filepath.EvalSymlinks(top)
	if err != nil {
		return nil, err
	}
	s := &scanner{ctx: ctx, top: filepath.Clean(top)}
	if s.exclude, err = parseGlobs(opt.Exclude); err != nil {
		return nil, err
	}
	if info, err := os.Stat(s.top); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, &fs.PathError{Op: "scan", Path: s.top, Err: syscall.ENOTDIR}
	}
	if err := fastwalk.Walk(&fastwalk.Config{}, s.top, s.visit); err != nil {
		return nil, err
	}
	return s.result()
}

type scanner struct {
	ctx     context.Context
	top     string
	exclude []glob

	mu      sync.Mutex
	found   []found
	refused []string // what a release cannot hold, as "path (kind)"
}

type found struct {
	node  Node
	stamp stamp
	links uint64
}

// visit is called by several goroutines of fastwalk at once.
func (s *scanner) visit(p string, d fs.DirEntry, err error) error {
	if err == nil {
		err = s.ctx.Err()
	}
	if err != nil {
		return vanished(err)
	}
	rel := "."
	if p != s.top {
		rel = strings.TrimPrefix(strings.TrimPrefix(p, s.top), "/")
		if slices.ContainsFunc(s.exclude, func(g glob) bool { return g.match(rel) }) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
	}
	f, err := examine(p, rel, d)
	if errors.Is(err, ErrUnsupported) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.refused = append(s.refused, fmt.Sprintf("%q (%s)", rel, kindName(d.Type())))
		return nil
	}
	if err != nil {
		return vanished(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found = append(s.found, f)
	return nil
}

// vanished tells an entry that went away after its directory was read from
// one that was never there.
func vanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODATA) {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return err
}

func kindName(m fs.FileMode) string {
	switch {
	case m&fs.ModeNamedPipe != 0:
		return "FIFO"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "of unknown kind"
}

// examine gathers the metadata of the entry at p, named rel in the release.
func examine(p, rel string, d fs.DirEntry) (found, error) {
	info, err := d.Info()
	if err != nil {
		return found{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return found{}, fmt.Errorf("%s: no stat on this platform", p)
	}
	if st.Mtim.Sec <= math.MinInt64/second || st.Mtim.Sec >= math.MaxInt64/second {
		return found{}, fmt.Errorf("%s: the modification time %d s is out of bounds: set it with touch", p, st.Mtim.Sec)
	}
	n := Node{Path: rel, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Mtime: st.Mtim.Nano()}
	switch info.Mode().Type() {
	case fs.ModeDir:
		n.Kind = Dir
	case fs.ModeSymlink:
		n.Kind = Symlink
		if n.Target, err = os.Readlink(p); err != nil {
			return found{}, err
		}
		n.Size = int64(len(n.Target))
	case 0:
		n.Kind, n.Size = File, st.Size
		if n.Holes, err = holes(p, st); err != nil {
			return found{}, err
		}
	default:
		return found{}, ErrUnsupported
	}
	if n.Xattrs, err = xattrs(p); err != nil {
		return found{}, err
	}
	return found{n, stampOf(st), uint64(st.Nlink)}, nil
}

// result puts what was found in order and joins the names of one inode.
func (s *scanner) result() (*ScanResult, error) {
	if len(s.refused) > 0 {
		slices.Sort(s.refused)
		return nil, fmt.Errorf("%w: %s, %d in all: remove or exclude them", ErrUnsupported, s.refused[0], len(s.refused))
	}
	slices.SortFunc(s.found, func(a, b found) int { return cmp.Compare(a.node.Path, b.node.Path) })
	out := &ScanResult{Nodes: make([]Node, 0, len(s.found)), stamps: make([]stamp, 0, len(s.found))}
	first := make(map[[2]uint64]string)
	for _, f := range s.found {
		if f.node.Kind == File && f.links > 1 {
			inode := [2]uint64{f.stamp.dev, f.stamp.ino}
			if to, again := first[inode]; again {
				f.node.Link, f.node.Xattrs, f.node.Holes = to, nil, nil
			} else {
				first[inode] = f.node.Path
			}
		}
		out.Nodes, out.stamps = append(out.Nodes, f.node), append(out.stamps, f.stamp)
	}
	return out, nil
}

type glob struct {
	pattern string
	whole   bool // match the whole path, not the last element
}

func parseGlobs(in []string) ([]glob, error) {
	var out []glob
	for _, s := range in {
		p := strings.TrimRight(s, "/")
		g := glob{strings.TrimLeft(p, "/"), strings.Contains(p, "/")}
		if _, err := path.Match(g.pattern, ""); err != nil || g.pattern == "" {
			return nil, fmt.Errorf("the exclude glob %q cannot be read: see path.Match", s)
		}
		out = append(out, g)
	}
	return out, nil
}

func (g glob) match(rel string) bool {
	if !g.whole {
		rel = path.Base(rel)
	}
	ok, _ := path.Match(g.pattern, rel) // the pattern was tried by parseGlobs
	return ok
}
