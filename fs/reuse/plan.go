package reuse

import (
	"crypto/sha1"

	"dcfs/cache/piece"
	"dcfs/fs/tree"
)

// maxWanted bounds how many pieces are looked for by their hash; it takes some
// 100 bytes each.
const maxWanted = 1 << 20

// plan is where the bytes of the release may be. It is a few bytes for each
// entry of the tree and for each piece that has moved, whatever the sources
// say: their trees are not kept.
type plan struct {
	tree    *tree.Tree
	whole   []uint8            // by entry: 1 + the source that has the very file
	renamed map[tree.ID]string // the path there, when it is another
	same    []uint16           // by entry: the sources (bits) that may have another file at the path
	pieces  map[piece.Index]place
	moved   map[tree.ID]shift // where scanning found the content of a file
}

// place is where a whole piece is said to be.
type place struct {
	source uint8
	path   string
	off    int64
}

// shift says that the byte at offset o of a file is at o+by of an old one.
type shift struct {
	source uint8
	path   string
	by     int64
}

func (p *plan) init(t *tree.Tree) {
	p.tree = t
	p.whole, p.same = make([]uint8, t.Len()), make([]uint16, t.Len())
	p.renamed, p.pieces, p.moved = map[tree.ID]string{}, map[piece.Index]place{}, map[tree.ID]shift{}
}

// matchPaths is for a directory of which nothing is known.
func (p *plan) matchPaths(at uint8) {
	for id := range p.tree.Stream() {
		p.same[id] |= 1 << at
	}
}

// matchFiles finds files by their SHA-256, at the same path or another, and
// notes which changed.
func (p *plan) matchFiles(at uint8, old *tree.Tree) {
	bySum := make(map[[32]byte]tree.ID)
	for id := range old.Stream() {
		if sum := old.Entry(id).Sum; bySum[sum] == 0 {
			bySum[sum] = id
		}
	}
	for id := range p.tree.Stream() {
		if p.whole[id] != 0 {
			continue
		}
		e, path := p.tree.Entry(id), p.tree.Path(id)
		there, ok := old.Find(path)
		ok = ok && old.Kind(there) == tree.File
		if ok && old.Entry(there).Sum == e.Sum && old.Entry(there).Size == e.Size {
			p.whole[id] = at + 1
		} else if from := bySum[e.Sum]; from != 0 && old.Entry(from).Size == e.Size {
			p.whole[id], p.renamed[id] = at+1, old.Path(from)
		} else if ok {
			p.same[id] |= 1 << at
		}
	}
}

// wholePath returns the path of the very file in the source that has it.
func (p *plan) wholePath(id tree.ID) string {
	if path, ok := p.renamed[id]; ok {
		return path
	}
	return p.tree.Path(id)
}

// matchPieces finds pieces of changed files by the older release's piece
// hashes. Only pieces that lie in one file are looked at; the others are
// mixed from files, which are found as such.
func (r *Reuse) matchPieces(at uint8, old Known) {
	if old.Layout.Length != r.cfg.Layout.Length {
		return // no two full pieces can be equal
	}
	wanted := r.wantedPieces()
	if len(wanted) == 0 {
		return
	}
	found := make(map[[sha1.Size]byte]place)
	file, path := tree.None, ""
	for i := range piece.Index(old.Layout.Count()) {
		hash := old.Hash(i)
		if _, ok := wanted[hash]; !ok {
			continue
		}
		for x := range old.Tree.Extents(old.Layout.Offset(i), old.Layout.Size(i)) {
			if x.File == tree.None || x.Length != old.Layout.Size(i) {
				break
			}
			if x.File != file {
				file, path = x.File, old.Tree.Path(x.File)
			}
			found[hash] = place{at, path, x.Offset}
		}
	}
	for i := range piece.Index(r.cfg.Layout.Count()) {
		hash := r.cfg.Hash(i)
		if p, ok := found[hash]; ok {
			if _, twice := r.plan.pieces[i]; !twice {
				r.plan.pieces[i] = p
			}
		}
	}
}

// wantedPieces returns the hashes of the pieces that no whole files cover and
// that were not found yet.
func (r *Reuse) wantedPieces() map[[sha1.Size]byte]struct{} {
	wanted := make(map[[sha1.Size]byte]struct{})
	for i := range piece.Index(r.cfg.Layout.Count()) {
		if len(wanted) == maxWanted {
			break
		}
		if _, ok := r.plan.pieces[i]; !ok && !r.covered(i, r.plan.isWhole) {
			wanted[r.cfg.Hash(i)] = struct{}{}
		}
	}
	return wanted
}

func (p *plan) isWhole(id tree.ID) bool { return p.whole[id] != 0 }
func (p *plan) maybe(id tree.ID) bool   { return p.whole[id] != 0 || p.same[id] != 0 }

// covered reports whether all bytes of a piece are padding or of files that
// have the property. A piece of padding alone counts: it is zeros.
func (r *Reuse) covered(i piece.Index, is func(tree.ID) bool) bool {
	for x := range r.cfg.Tree.Extents(r.cfg.Layout.Offset(i), r.cfg.Layout.Size(i)) {
		if x.File != tree.None && !is(x.File) {
			return false
		}
	}
	return true
}

// hold returns the pieces that are worth a try.
func (r *Reuse) hold() *piece.Set {
	held := piece.NewSet(r.cfg.Layout.Count())
	if len(r.sources) == 0 {
		return held
	}
	for i := range piece.Index(r.cfg.Layout.Count()) {
		if r.cfg.Store.Have(i) {
			continue
		}
		if _, ok := r.plan.pieces[i]; ok || r.covered(i, r.plan.maybe) {
			held.Add(i)
		}
	}
	return held
}
