package tree

import (
	"encoding/binary"
	"fmt"
)

// The columns that few entries have part in, and the stream.

// step reads how far the next inode lies behind the last and returns it.
func (d *decoder) step(last *int64, what string) *node {
	*last += int64(d.uint(uint64(len(d.t.nodes)), what))
	if *last < 0 || *last >= int64(len(d.t.nodes)) || d.t.nodes[*last].inode != ID(*last) {
		d.fail("%s: entry %d has none of its own", what, *last)
		return nil
	}
	return &d.t.nodes[*last]
}

func (d *decoder) xattrs() {
	sets := make([][]Xattr, d.atMost(len(d.t.nodes), d.count(4, "xattr sets"), "xattr sets"))
	seen := make(map[string]bool, len(sets))
	for i := range sets {
		before := d.b
		sets[i] = d.xattrSet()
		raw := string(before[:len(before)-len(d.b)])
		if seen[raw] {
			d.fail("a set of xattrs is there twice")
		}
		if d.err != nil {
			return
		}
		seen[raw] = true
	}
	last, used := int64(-1), 0
	for range d.count(2, "xattr uses") {
		before := last
		n := d.step(&last, "xattrs")
		set := int(d.uint(uint64(min(used+1, len(sets))), "xattr set"))
		if n == nil || set == 0 || last == before {
			d.fail("xattrs: entry %d is no user of set %d", last, set)
			return
		}
		used = max(used, set)
		d.extra(n).xattrs = sets[set-1]
	}
	if used != len(sets) {
		d.fail("a set of xattrs is used by nobody")
	}
}

func (d *decoder) xattrSet() []Xattr {
	n := d.count(3, "xattrs")
	if n == 0 || n > maxXattrs {
		d.fail("%d xattrs in a set; %d are the limit", n, maxXattrs)
		return nil
	}
	out := make([]Xattr, n)
	for i := range out {
		name := d.take(int(d.uint(maxName, "xattr name")), "xattr name")
		value := d.take(int(d.uint(maxXattr, "xattr value")), "xattr value")
		if d.spend(xattrCost + len(name) + len(value)); d.err != nil {
			return nil
		}
		out[i] = Xattr{string(name), append([]byte(nil), value...)}
	}
	return out
}

func (d *decoder) holes() {
	last := int64(-1)
	for range d.count(4, "files with holes") {
		before := last
		n := d.step(&last, "holes")
		count := d.count(2, "holes")
		if n == nil || last == before || count == 0 || count > maxHoles {
			d.fail("entry %d cannot have %d holes", last, count)
			return
		}
		if d.spend(holeCost * count); d.err != nil {
			return
		}
		d.extra(n).holes = d.holesOf(count)
	}
}

func (d *decoder) holesOf(count int) []Hole {
	out := make([]Hole, count)
	var end int64
	for i := range out {
		out[i].Offset = end + int64(d.uint(uint64(maxTotal-end), "hole"))
		out[i].Length = int64(d.uint(uint64(maxTotal-out[i].Offset), "length of a hole"))
		end = out[i].Offset + out[i].Length
	}
	return out
}

func (d *decoder) stream() {
	count := 0
	d.inodes(func(_ ID, n *node) {
		if n.kind() == File && n.size > 0 {
			count++
		}
	})
	if count == 0 {
		return
	}
	d.t.order = make([]ID, count)
	last := int64(0)
	for i := range d.t.order {
		last += d.int(maxEntries, "stream")
		if last < 0 || last >= int64(len(d.t.nodes)) {
			d.fail("the stream holds entry %d, which is none", last)
			return
		}
		d.t.order[i] = ID(last)
	}
}

// padding reads the gaps in the stream and gives each file its place.
func (d *decoder) padding() {
	gaps := d.count(2, "padding")
	next, gap := d.gap(-1, &gaps)
	var end int64
	for i, id := range d.t.order {
		n := &d.t.nodes[id]
		if i == next {
			end += gap
			next, gap = d.gap(i, &gaps)
		}
		if n.offset = end; n.size > maxTotal-end {
			d.fail("the stream is longer than %d bytes", maxTotal)
			return
		}
		end += n.size
	}
	if next >= 0 {
		d.fail("padding where no file follows")
	}
	d.t.total = max(end, 1)
}

// gap reads which file, counted in the stream, has padding before it, and how
// long the padding is; -1 when left says that there is no further one.
func (d *decoder) gap(last int, left *int) (at int, length int64) {
	if *left == 0 {
		return -1, 0
	}
	*left--
	at = last + int(d.uint(uint64(len(d.t.order)), "padded file"))
	length = int64(d.uint(uint64(d.t.piece-1), "length of padding"))
	if at <= last || length == 0 {
		d.fail("padding without a file or a length")
	}
	return at, length
}

// digests gives each file its own. They are taken as they are, because any 32
// bytes may be a digest, and where they are, because they are most of a tree.
func (d *decoder) digests(b []byte) error {
	files := 0
	d.inodes(func(_ ID, n *node) {
		if n.kind() == File {
			files++
			n.sum = uint32(files)
		}
	})
	weak := d.t.weakCount()
	if len(b) != files*digest && int64(len(b)) != int64(files)*digest+4*weak {
		return fmt.Errorf("%d bytes of digests for %d files and %d weak sums", len(b), files, weak)
	}
	d.t.sums = b[: files*digest : files*digest]
	for b = b[files*digest:]; len(b) > 0; b = b[4:] {
		d.t.weak = append(d.t.weak, binary.BigEndian.Uint32(b))
	}
	return nil
}
