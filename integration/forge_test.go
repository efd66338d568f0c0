package integration

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// forgedEntry is an entry of a tree that dcfs would never write.
type forgedEntry struct {
	kind     uint64 // 1 directory, 2 file, 3 symlink
	name     string
	size     uint64
	target   string
	children uint64
}

// forged is a release made by hand, from the description of the encoding in
// fs/tree/encode.go and nothing else of dcfs.
type forged struct {
	entries []forgedEntry // the root first, then breadth first
	claim   uint64        // number of entries to claim; 0 is the truth
	files   string        // list of files for stock clients; "" is the right one
	total   uint64        // bytes of content that the piece hashes are for
	method  byte
	columns []byte // in place of the right ones
}

func column(b []byte, values ...uint64) []byte {
	for _, v := range values {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// tree encodes the entries, right or wrong.
func (f forged) tree() []byte {
	n := uint64(len(f.entries))
	claim := f.claim
	if claim == 0 {
		claim = n
	}
	b := column(nil, 14, claim) // pieces of 16 KiB
	// Classes in the order of their use: kind<<12|mode, uid, gid.
	var kinds []uint64
	for _, e := range f.entries {
		if !slices.Contains(kinds, e.kind) {
			kinds = append(kinds, e.kind)
		}
	}
	b = column(b, uint64(len(kinds)))
	for _, k := range kinds {
		b = column(b, k<<12|0o755, 0, 0)
	}
	for _, e := range f.entries {
		b = column(b, uint64(slices.Index(kinds, e.kind)+1))
	}
	b = f.each(b, 1, func(e forgedEntry) uint64 { return e.children })
	b = append(b, make([]byte, 2*n)...) // all of 1970
	b = f.each(b, 2, func(e forgedEntry) uint64 { return e.size })
	names, targets := "", ""
	for _, e := range f.entries[1:] {
		b, names = column(b, uint64(len(e.name))), names+e.name
	}
	b = append(b, names...)
	b = f.each(b, 3, func(e forgedEntry) uint64 { targets += e.target; return uint64(len(e.target)) })
	b = append(b, targets...)
	b = column(b, 0, 0, 0) // no xattrs, no holes
	last, digests := int64(0), 0
	for i, e := range f.entries {
		if e.kind == 2 && e.size > 0 {
			b, last = binary.AppendVarint(b, int64(i)-last), int64(i)
		}
		if e.kind == 2 {
			digests++
		}
	}
	b = column(b, 0) // no padding
	if f.columns != nil {
		b = f.columns
	}
	out := append([]byte("dcfstree\x01"), f.method)
	out = column(out, uint64(len(b)), uint64(len(b)))
	return append(append(out, b...), make([]byte, 32*digests)...)
}

func (f forged) each(b []byte, kind uint64, value func(forgedEntry) uint64) []byte {
	for _, e := range f.entries {
		if e.kind == kind {
			b = column(b, value(e))
		}
	}
	return b
}

// info is the dictionary around the tree.
func (f forged) info() string {
	str := func(s string) string { return fmt.Sprintf("%d:%s", len(s), s) }
	files := f.files
	if files == "" {
		files = "l"
		for _, e := range f.entries {
			if e.kind == 2 {
				files += fmt.Sprintf("d4:attr1:x6:lengthi%de4:pathl%see", e.size, str(e.name))
			}
		}
		files += "e"
	}
	zeros := make([]byte, 16<<10)
	var pieces strings.Builder
	for left := max(f.total, 1); left > 0; {
		n := min(left, uint64(len(zeros)))
		sum := sha1.Sum(zeros[:n])
		pieces.Write(sum[:])
		left -= n
	}
	return "d4:dcfsd4:tree" + str(string(f.tree())) + "7:versioni1ee5:files" + files +
		"4:name1:v12:piece lengthi16384e6:pieces" + str(pieces.String()) + "7:privatei1ee"
}

var forgedRoot = func(children uint64) forgedEntry { return forgedEntry{kind: 1, children: children} }

func forgedFile(name string, size uint64) forgedEntry {
	return forgedEntry{kind: 2, name: name, size: size}
}

func flat(entries ...forgedEntry) forged {
	f := forged{entries: append([]forgedEntry{forgedRoot(uint64(len(entries)))}, entries...)}
	for _, e := range entries {
		f.total += e.size
	}
	if f.total > 1<<30 {
		f.total = 0
	}
	return f
}

// hostileTrees are refused even when a key that is trusted has signed them.
func hostileTrees() map[string]forged {
	long := strings.Repeat("n", 256)
	trees := map[string]forged{
		"dot dot":          flat(forgedFile("..", 5)),
		"dot":              flat(forgedFile(".", 5)),
		"slash":            flat(forgedFile("a/../../x", 5)),
		"absolute":         flat(forgedFile("/etc/cron.d/x", 5)),
		"no name":          flat(forgedFile("", 5)),
		"NUL":              flat(forgedFile("a\x00b", 5)),
		"long name":        flat(forgedFile(long, 5)),
		"twice":            flat(forgedFile("a", 5), forgedFile("a", 5)),
		"not in order":     flat(forgedFile("b", 5), forgedFile("a", 5)),
		"link and file":    flat(forgedEntry{kind: 3, name: "a", target: "/etc"}, forgedFile("a", 5)),
		"directory dotdot": {entries: []forgedEntry{forgedRoot(1), {kind: 1, name: "..", children: 1}, forgedFile("x", 5)}, total: 5},
		"under a link": {entries: []forgedEntry{forgedRoot(2), {kind: 3, name: "a", target: "/etc"}, {kind: 1, name: "a", children: 1}, forgedFile("x", 5)},
			total: 5},
		"child of a file":     {entries: []forgedEntry{forgedRoot(1), forgedFile("a", 5), forgedFile("x", 5)}, total: 10},
		"children to spare":   {entries: []forgedEntry{forgedRoot(9), forgedFile("a", 5)}, total: 5},
		"children wrap":       {entries: []forgedEntry{forgedRoot(1<<64 - 1), forgedFile("a", 5)}, total: 5},
		"link with NUL":       flat(forgedEntry{kind: 3, name: "a", target: "x\x00y"}),
		"link to nothing":     flat(forgedEntry{kind: 3, name: "a"}),
		"link of 4096 bytes":  flat(forgedEntry{kind: 3, name: "a", target: strings.Repeat("x", 4096)}),
		"device":              flat(forgedEntry{kind: 4, name: "a"}),
		"no kind":             flat(forgedEntry{kind: 0, name: "a"}),
		"size above all":      flat(forgedFile("a", 1<<63)),
		"size 2^64-1":         flat(forgedFile("a", 1<<64-1)),
		"sizes add up to 0":   flat(forgedFile("a", 1<<63), forgedFile("b", 1<<63)),
		"sizes overflow":      flat(forgedFile("a", 1<<52), forgedFile("b", 1<<52), forgedFile("c", 1<<52)),
		"hashes for less":     {entries: flat(forgedFile("a", 1<<40)).entries, total: 1 << 14},
		"10^7 entries":        {entries: flat(forgedFile("a", 5)).entries, claim: 10_000_000, total: 5},
		"2^63 entries":        {entries: flat(forgedFile("a", 5)).entries, claim: 1 << 63, total: 5},
		"no entries":          {entries: flat().entries, columns: column(nil, 14, 0)},
		"piece length 2^63":   {entries: flat().entries, columns: column(nil, 63, 1)},
		"only a head":         {entries: flat().entries, columns: column(nil, 14, 2_000_000)},
		"compressed noise":    {entries: flat(forgedFile("a", 5)).entries, method: 1, total: 5},
		"unknown method":      {entries: flat(forgedFile("a", 5)).entries, method: 9, total: 5},
		"other list of files": {entries: flat(forgedFile("a", 5)).entries, files: "ld4:attr1:x6:lengthi5e4:pathl2:..1:aeee", total: 5},
		"shorter list":        {entries: flat(forgedFile("a", 5)).entries, files: "le", total: 5},
	}
	deep := []forgedEntry{forgedRoot(1)}
	for range 5000 {
		deep = append(deep, forgedEntry{kind: 1, name: "d", children: 1})
	}
	trees["5000 deep"] = forged{entries: append(deep, forgedFile("x", 5)), total: 5}
	return trees
}
