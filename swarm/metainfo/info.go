package metainfo

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"dcfs/cache/piece"
	"dcfs/fs/tree"
)

const version = 1

// encodeInfo returns the info dictionary (BEP 3) of a tree.
func encodeInfo(t *tree.Tree, name string, pieces []byte) ([]byte, error) {
	encoded := tree.Encode(t)
	b := append(make([]byte, 0, len(encoded)+len(pieces)+80*t.Files()+1024), 'd')
	b = appendString(b, "dcfs")
	b = append(b, 'd')
	b = appendString(appendString(b, "tree"), encoded)
	b = append(appendInt(appendString(b, "version"), version), 'e')
	b, err := appendFiles(appendString(b, "files"), t, MaxSize)
	if err != nil {
		return nil, err
	}
	b = appendString(appendString(b, "name"), name)
	b = appendInt(appendString(b, "piece length"), t.PieceLength())
	b = appendString(appendString(b, "pieces"), pieces)
	b = appendInt(appendString(b, "private"), 1) // BEP 27
	return append(b, 'e'), nil
}

// fileList writes what BEP 3 calls files.
type fileList struct {
	b    []byte
	t    *tree.Tree
	dir  tree.ID // whose path prefix is for
	path []byte  // the elements of dir's path as bencoded strings
	pad  string  // first element of pad files' paths
	pads map[int64]int
}

// appendFiles appends the list of files as a client that knows nothing of dcfs
// sees them: the payload stream in its order, with padding as files of their
// own (BEP 47), and the empty files at the end. Further names of hardlinks and
// symlinks are not payload. It gives up when b grows beyond limit, because a
// small tree can have paths that are long in all.
func appendFiles(b []byte, t *tree.Tree, limit int) ([]byte, error) {
	l := newFileList(b, t)
	err := l.all(func() error {
		if len(l.b) > limit {
			return fmt.Errorf("the list of files takes more than %d bytes", limit)
		}
		return nil
	})
	return l.b, err
}

var errOtherFiles = errors.New("its list of files is not the one that the tree gives")

// sameFiles proves that got is the list that appendFiles makes of t, without
// making all of it: for half a million files it has tens of megabytes.
func sameFiles(got []byte, t *tree.Tree) error {
	l := newFileList(nil, t)
	err := l.all(func() (err error) {
		got, err = l.match(got)
		return err
	})
	if err == nil && len(got) > 0 {
		err = errOtherFiles
	}
	return err
}

// match takes what was written so far off the front of got.
func (l *fileList) match(got []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(got, l.b)
	l.b = l.b[:0]
	if !ok {
		return nil, errOtherFiles
	}
	return rest, nil
}

func newFileList(b []byte, t *tree.Tree) *fileList {
	return &fileList{b: b, t: t, dir: tree.None, pad: padDir(t), pads: make(map[int64]int)}
}

// all writes the whole list; step is called after each file and at the end.
func (l *fileList) all(step func() error) error {
	l.b = append(l.b, 'l')
	var end int64
	for id := range l.t.Stream() {
		off, size := l.t.Span(id)
		if off > end {
			l.padding(off - end)
		}
		l.file(id, size)
		end = off + size
		if err := step(); err != nil {
			return err
		}
	}
	if end < l.t.Total() { // a release without content is one byte of padding
		l.padding(l.t.Total() - end)
	}
	for id := range tree.ID(l.t.Len()) {
		if l.t.Kind(id) != tree.File || l.t.Inode(id) != id {
			continue
		}
		if _, size := l.t.Span(id); size == 0 {
			l.file(id, 0)
		}
		if err := step(); err != nil {
			return err
		}
	}
	l.b = append(l.b, 'e')
	return step()
}

func (l *fileList) file(id tree.ID, size int64) {
	attr := ""
	if l.t.Meta(id).Mode&0o111 != 0 {
		attr = "x"
	}
	l.head(attr, size)
	if parent := l.t.Parent(id); parent != l.dir {
		l.dir, l.path = parent, appendPath(l.path[:0], l.t, parent)
	}
	l.b = append(l.b, l.path...)
	l.b = append(appendString(l.b, l.t.Name(id)), "ee"...)
}

// padding adds a pad file. BEP 47 wants its length as its name; a client that
// does not know pad files would write those of one length over each other, so
// the second of a length has a number more.
func (l *fileList) padding(size int64) {
	l.pads[size]++
	name := strconv.FormatInt(size, 10)
	if n := l.pads[size]; n > 1 {
		name += "." + strconv.Itoa(n)
	}
	l.head("p", size)
	l.b = append(appendString(appendString(l.b, l.pad), name), "ee"...)
}

func (l *fileList) head(attr string, size int64) {
	l.b = append(l.b, 'd')
	if attr != "" {
		l.b = appendString(appendString(l.b, "attr"), attr)
	}
	l.b = appendInt(appendString(l.b, "length"), size)
	l.b = append(appendString(l.b, "path"), 'l')
}

func appendPath(b []byte, t *tree.Tree, id tree.ID) []byte {
	if id == tree.Root {
		return b
	}
	return appendString(appendPath(b, t, t.Parent(id)), t.Name(id))
}

// padDir returns the first of .pad, .pad_, .pad__ that the tree does not have.
func padDir(t *tree.Tree) string {
	name := ".pad"
	for {
		if _, taken := t.Lookup(tree.Root, name); !taken {
			return name
		}
		name += "_"
	}
}

// ParseInfo reads a bare info dictionary, as BEP 9 brings it. Name is then the
// last element of the release's name; trackers, statement and signature are
// not part of it. Otherwise it is as strict as Parse.
func ParseInfo(raw []byte) (*Metainfo, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes; %d are the limit", ErrInvalid, len(raw), MaxSize)
	}
	m, err := parseInfo(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: its info dictionary: %w", ErrInvalid, err)
	}
	return m, nil
}

func parseInfo(raw []byte) (*Metainfo, error) {
	info, err := parseDict(raw)
	if err != nil {
		return nil, err
	}
	m := &Metainfo{Info: raw}
	var hashed sync.WaitGroup
	hashed.Go(func() { m.InfoHash, m.InfoSHA256 = sha1.Sum(raw), sha256.Sum256(raw) })
	t, err := treeOf(info)
	hashed.Wait() // it took less than the tree
	if err != nil {
		return nil, err
	}
	name, err := info.string("name")
	if err == nil {
		err = validSegment(string(name))
	}
	if err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	pieces, err := info.string("pieces")
	if err != nil {
		return nil, err
	}
	m.Name, m.Tree, m.Pieces = string(name), t, pieces
	m.Layout = piece.Layout{Total: t.Total(), Length: t.PieceLength()}
	if err := checkPieces(m.Layout, pieces); err != nil {
		return nil, err
	}
	return m, agree(info, t)
}

// treeOf finds the tree in an info dictionary.
func treeOf(info dict) (*tree.Tree, error) {
	if _, ok := info["dcfs"]; !ok {
		return nil, errors.New("there is no dcfs tree in it: another tool made this torrent; use one from dcfs publish")
	}
	own, err := info.dict("dcfs")
	if err != nil {
		return nil, err
	}
	if v := own["version"]; !bytes.Equal(v, appendInt(nil, version)) {
		return nil, fmt.Errorf("dcfs version %.20q instead of %d: use the dcfs that published it, or a newer one", v, version)
	}
	encoded, err := own.string("tree")
	if err != nil {
		return nil, err
	}
	if len(own) != 2 {
		return nil, fmt.Errorf("%d dcfs keys instead of tree and version", len(own))
	}
	return tree.Decode(encoded)
}

func checkPieces(l piece.Layout, pieces []byte) error {
	if want := int64(l.Count()) * sha1.Size; int64(len(pieces)) != want {
		return fmt.Errorf("%d bytes of piece hashes; %d pieces need %d", len(pieces), l.Count(), want)
	}
	return nil
}

// agree proves that what a stock client reads of the dictionary is what the
// tree says, and that there is nothing else in it.
func agree(info dict, t *tree.Tree) error {
	if !bytes.Equal(info["private"], []byte("i1e")) {
		return errors.New("it is not private (BEP 27)")
	}
	if !bytes.Equal(info["piece length"], appendInt(nil, t.PieceLength())) {
		return fmt.Errorf("its piece length is not the tree's, %d", t.PieceLength())
	}
	if err := sameFiles(info["files"], t); err != nil {
		return err
	}
	if len(info) != 6 { // dcfs, files, name, piece length, pieces, private
		return fmt.Errorf("it has %d keys; dcfs writes 6", len(info))
	}
	return nil
}
