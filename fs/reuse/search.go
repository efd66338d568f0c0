package reuse

import (
	"context"
	"crypto/sha1"
	"errors"
	"io"
	"math/bits"

	"dcfs/cache/piece"
	"dcfs/fs/tree"
)

const (
	// searchRatio is how many bytes are searched through at most for each byte
	// that is missing.
	searchRatio = 8
	// searchBuffer is how much of an old file is read at once.
	searchBuffer = 1 << 20
	// maxMisses is how often the weak sum of a piece may be found where the
	// piece is not, before it is not looked for any more: content that repeats
	// itself would be hashed at every byte.
	maxMisses = 4
)

// largeFile is a file whose pieces have weak sums.
type largeFile struct {
	id      tree.ID
	pieces  piece.Range // those that lie in the file whole
	weak    []uint32    // one for each of them
	missing []piece.Index
}

// largeFiles returns, in the order of the stream, the files that can be
// searched for: an older file is at their path, and they have weak sums.
func (r *Reuse) largeFiles() []*largeFile {
	var out []*largeFile
	for id, weak := range r.cfg.Tree.WeakSums() {
		if r.plan.same[id] == 0 || r.plan.whole[id] != 0 {
			continue
		}
		off, _ := r.cfg.Tree.Span(id)
		first := r.cfg.Layout.At(off)
		out = append(out, &largeFile{id: id, weak: weak,
			pieces: piece.Range{First: first, End: first + piece.Index(len(weak))}})
	}
	return out
}

// search looks for the missing pieces of a file at every place of the old
// files at its path.
func (r *Reuse) search(ctx context.Context, f *largeFile) error {
	defer func() {
		for _, i := range f.missing {
			r.decide(i)
		}
	}()
	path := r.cfg.Tree.Path(f.id)
	for set := r.plan.same[f.id]; set != 0; set &= set - 1 {
		s := bits.TrailingZeros16(set)
		sc := r.newScan(f, uint8(s), path)
		old, size, err := r.sources[s].open(path)
		if err != nil || int64(sc.left)*r.cfg.Layout.Length < size/searchRatio {
			continue
		}
		n, err := sc.run(ctx, io.NewSectionReader(old, 0, size))
		r.stats.Scanned += n
		if err != nil {
			return err
		}
	}
	return nil
}

// scan is one search through one old file.
type scan struct {
	r      *Reuse
	file   *largeFile
	at     shift
	wanted map[uint32][]piece.Index // by weak sum
	maybe  [1 << 10]uint64          // a bit for the high half of each wanted sum
	left   int                      // pieces wanted
	misses map[uint32]int
	old    *io.SectionReader
}

func (r *Reuse) newScan(f *largeFile, s uint8, path string) *scan {
	sc := &scan{r: r, file: f, at: shift{source: s, path: path},
		wanted: map[uint32][]piece.Index{}, misses: map[uint32]int{}}
	for _, i := range f.missing {
		if !r.cfg.Store.Have(i) {
			w := f.weak[i-f.pieces.First]
			sc.wanted[w] = append(sc.wanted[w], i)
			sc.maybe[w>>22] |= 1 << (w >> 16 & 63)
			sc.left++
		}
	}
	return sc
}

// run rolls the window over the old file and returns how far it came.
func (sc *scan) run(ctx context.Context, old *io.SectionReader) (int64, error) {
	sc.old = old
	buf := make([]byte, min(searchBuffer, old.Size()))
	pos := int64(0) // of buf[0] in the old file
	for sc.left > 0 && pos+tree.WeakWindow <= old.Size() {
		if ctx.Err() != nil {
			return pos, context.Cause(ctx)
		}
		n, err := old.ReadAt(buf, pos)
		if err != nil && !errors.Is(err, io.EOF) || n < tree.WeakWindow {
			return pos, nil // damaged, or shorter by now
		}
		next, err := sc.chunk(buf[:n], pos)
		if err != nil {
			return pos, err
		}
		pos = next
	}
	return min(pos, old.Size()), nil
}

// chunk looks at every place of b that holds a whole window, and returns the
// place in the old file to go on at.
func (sc *scan) chunk(b []byte, pos int64) (int64, error) {
	sum := tree.WeakOf(b[:tree.WeakWindow])
	last := len(b) - tree.WeakWindow
	for i := 0; ; i++ {
		if w := sum.Sum(); sc.maybe[w>>22]&(1<<(w>>16&63)) != 0 && sc.wanted[w] != nil {
			found, err := sc.hit(w, pos+int64(i))
			if err != nil {
				return 0, err
			}
			if found { // what follows it probably follows here, too
				return pos + int64(i) + sc.r.cfg.Layout.Length, nil
			}
		}
		if i == last {
			return pos + int64(i) + 1, nil
		}
		sum = sum.Roll(b[i], b[i+tree.WeakWindow])
	}
}

// hit reads the piece that may be at pos and offers it for every piece that it
// is. It reports whether it was any.
func (sc *scan) hit(w uint32, pos int64) (bool, error) {
	data := make([]byte, sc.r.cfg.Layout.Length)
	if n, _ := sc.old.ReadAt(data, pos); n < len(data) {
		return false, nil
	}
	sum := sha1.Sum(data)
	var rest []piece.Index
	for _, i := range sc.wanted[w] {
		if sc.r.cfg.Hash(i) != sum {
			rest = append(rest, i)
			continue
		}
		taken, err := sc.r.cfg.Store.Offer(i, data)
		if err != nil {
			return false, err
		}
		if sc.left--; taken {
			sc.take(i, pos)
		}
	}
	found := len(rest) < len(sc.wanted[w])
	if !found {
		if sc.misses[w]++; sc.misses[w] == maxMisses {
			sc.left -= len(rest)
			rest = nil
		}
	}
	sc.wanted[w] = rest
	return found, nil
}

func (sc *scan) take(i piece.Index, pos int64) {
	sc.r.count(i)
	sc.r.stats.Moved++
	off, _ := sc.r.cfg.Tree.Span(sc.file.id)
	sc.at.by = pos - (sc.r.cfg.Layout.Offset(i) - off)
	sc.r.plan.moved[sc.file.id] = sc.at
	sc.r.decide(i)
}
