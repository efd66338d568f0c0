package reuse

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"time"

	"dcfs/cache/piece"
	"dcfs/fs/tree"
)

// maxAttempts is in how many ways a piece is put together from files that may
// have changed, before it is left to the peers.
const maxAttempts = 4

// Run tries all that is held and returns what came of it; every held piece is
// decided when it returns. It ends early, with the context's cause, when ctx
// ends or the store takes no more.
//
// Memory is bounded by a few pieces; the store holds Run up when its disk does
// not keep up.
func (r *Reuse) Run(ctx context.Context) (stats Stats, err error) {
	started := time.Now()
	defer func() {
		for i := range r.open.Clone().All() {
			r.decide(i)
		}
		r.stats.Took = time.Since(started)
		stats = r.stats
	}()
	claimed := r.cloneFiles(ctx)
	if err := r.pass(ctx); err != nil {
		return r.stats, err
	}
	r.cfg.Store.Scrub(ctx)
	for i := range claimed.All() {
		if r.cfg.Store.Have(i) {
			r.count(i)
		}
	}
	if ctx.Err() != nil {
		return r.stats, context.Cause(ctx)
	}
	return r.stats, nil
}

func (r *Reuse) count(i piece.Index) {
	r.stats.Pieces++
	r.stats.Bytes += r.cfg.Layout.Size(i)
	r.bytes.Store(r.stats.Bytes)
}

// pass goes through the held pieces in the order of the stream. Pieces of a
// large file that are not where they were wait for the search through the old
// file, which comes right behind the file's last piece.
func (r *Reuse) pass(ctx context.Context) error {
	large := r.largeFiles()
	for i := range r.open.Clone().All() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for len(large) > 0 && i >= large[0].pieces.End {
			if err := r.search(ctx, large[0]); err != nil {
				return err
			}
			large = large[1:]
		}
		ok, err := r.try(i)
		if err != nil {
			return err
		}
		if !ok && len(large) > 0 && i >= large[0].pieces.First {
			large[0].missing = append(large[0].missing, i)
			continue
		}
		r.decide(i)
	}
	for _, f := range large {
		if err := r.search(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// try reports whether piece i is here, or was put together from local bytes.
func (r *Reuse) try(i piece.Index) (bool, error) {
	if r.cfg.Store.Have(i) {
		return true, nil
	}
	buf := make([]byte, r.cfg.Layout.Size(i)) // the store keeps it
	if p, ok := r.plan.pieces[i]; ok && r.sources[p.source].readAt(p.path, buf, p.off) == nil {
		if taken, err := r.offer(i, buf); taken || err != nil {
			return taken, err
		}
	}
	tried := false
	for w, n := (way{moved: true}), 0; n < maxAttempts && w.from < len(r.sources); n++ {
		read, next := r.gather(i, buf, w)
		if w = next; !read {
			continue
		}
		tried = true
		if taken, err := r.offer(i, buf); taken || err != nil {
			return taken, err
		}
	}
	if tried {
		r.stats.Wrong++
	}
	return false, nil
}

// offer gives a piece to the store if it is right. Wrong bytes never get that
// far, so that they do not take the place of chunks that peers send.
func (r *Reuse) offer(i piece.Index, b []byte) (bool, error) {
	if sha1.Sum(b) != r.cfg.Hash(i) {
		return false, nil
	}
	taken, err := r.cfg.Store.Offer(i, b)
	if taken {
		r.count(i)
	}
	return taken, err
}

// way is one way to put a piece together where files may have changed.
type way struct {
	moved bool // where the search found a file's other content
	from  int  // else from this source on
}

// gather puts piece i together. It reports whether all of it could be read,
// and which way may be tried next.
func (r *Reuse) gather(i piece.Index, buf []byte, w way) (read bool, next way) {
	read, next = true, way{from: len(r.sources)}
	moved := false
	start := r.cfg.Layout.Offset(i)
	for x := range r.cfg.Tree.Extents(start, int64(len(buf))) {
		part := buf[x.Start-start:][:x.Length]
		if x.File == tree.None {
			clear(part)
			continue
		}
		if m, ok := r.plan.moved[x.File]; ok && w.moved {
			moved = true
			read = r.sources[m.source].readAt(m.path, part, x.Offset+m.by) == nil && read
			continue
		}
		s, path, ok := r.plan.source(x.File, w.from)
		if r.plan.whole[x.File] == 0 && s >= w.from {
			next.from = min(next.from, s+1)
		}
		read = ok && r.sources[s].readAt(path, part, x.Offset) == nil && read
	}
	if moved {
		next = way{}
	}
	return read, next
}

// source returns where a file may be: the very file, or else another at its
// path in the first source from from on, or in the first at all.
func (p *plan) source(id tree.ID, from int) (source int, path string, ok bool) {
	if w := p.whole[id]; w != 0 {
		return int(w) - 1, p.wholePath(id), true
	}
	for _, start := range []int{from, 0} {
		if set := p.same[id] >> start << start; set != 0 {
			return bits.TrailingZeros16(set), p.tree.Path(id), true
		}
	}
	return 0, "", false
}

// cloneFiles gives the stage the blocks of whole files, where the filesystem
// can share them, and claims the pieces that lie in such files.
func (r *Reuse) cloneFiles(ctx context.Context) *piece.Set {
	claims := piece.NewSet(r.cfg.Layout.Count())
	if r.cfg.Clone == nil {
		return claims
	}
	cloned := make([]bool, r.cfg.Tree.Len())
	some := false
	for id := range r.cfg.Tree.Stream() {
		if ctx.Err() != nil {
			return claims
		}
		if r.plan.whole[id] != 0 && r.cloneFile(id) {
			cloned[id], some = true, true
		}
	}
	if !some {
		return claims
	}
	for i := range r.held.All() {
		if r.covered(i, func(id tree.ID) bool { return cloned[id] }) {
			claims.Add(i)
		}
	}
	claims = r.cfg.Store.Claim(claims)
	for i := range claims.All() {
		r.decide(i)
	}
	return claims
}

func (r *Reuse) cloneFile(id tree.ID) bool {
	s := r.sources[r.plan.whole[id]-1]
	e := r.cfg.Tree.Entry(id)
	if s.noClone || len(e.Holes) > 0 { // holes are the release's, not the old file's
		return false
	}
	f, size, err := s.open(r.plan.wholePath(id))
	if err != nil || size != e.Size {
		return false
	}
	err = r.cfg.Clone(id, f)
	switch {
	case err == nil:
		r.stats.Cloned += e.Size
		return true
	case r.cfg.NoClone != nil && errors.Is(err, r.cfg.NoClone):
		s.noClone = true
	case !errors.Is(err, fs.ErrExist):
		r.cfg.Log.Warn("a file of an older release could not be cloned", "file", e.Name, "cause", fmt.Sprint(err))
		s.noClone = true
	}
	return false
}
