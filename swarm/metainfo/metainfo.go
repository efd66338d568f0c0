// Package metainfo turns a release's tree into BitTorrent v1 metainfo and back.
//
// Any client can fetch the payload with it; dcfs finds the whole tree in it.
// The package must never do I/O, decide whom to trust (statement and signature
// are opaque here), or return metainfo that a stock client and dcfs would read
// in two ways.
package metainfo

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"dcfs/cache/piece"
	"dcfs/fs/tree"
)

// ErrInvalid is wrapped by every error about metainfo, info dictionaries,
// magnet links and release names that break the rules.
var ErrInvalid = errors.New("invalid metainfo")

// Bounds of metainfo.
const (
	MaxSize = 64 << 20 // bytes in all

	maxURLs   = 64      // trackers, web seeds
	maxURL    = 2 << 10 // bytes in one
	maxSigned = 8 << 10 // bytes of a statement and of a signature
	maxName   = 512     // bytes of a release's name
	maxPart   = 255     // bytes of one segment of it
)

// Pieces holds the SHA-1 of every piece, one after the other.
type Pieces []byte

// Hash returns the SHA-1 of piece i, which must be in the layout.
func (p Pieces) Hash(i piece.Index) [sha1.Size]byte {
	return [sha1.Size]byte(p[int(i)*sha1.Size:])
}

// Params is what Create needs beside the tree.
type Params struct {
	Name     string // the release's name, such as "app/1.0"
	Pieces   []byte // SHA-1 of every piece of the tree's stream, 20 bytes each
	Trackers []string
	// WebSeeds (BEP 19) end with a slash; clients append the last segment of
	// Name, then the path of a file.
	WebSeeds  []string
	Statement []byte
	Signature []byte
}

// Metainfo is one release as it travels. Name, Trackers, WebSeeds, Statement
// and Signature may be set to something else before Encode; the rest follows
// from the info dictionary and must stay as it is. The slices share memory
// with what Parse was given.
type Metainfo struct {
	Name       string       // the release's name; see ParseInfo
	Info       []byte       // the info dictionary, byte for byte
	InfoHash   [20]byte     // SHA-1 of Info, by which BitTorrent knows it
	InfoSHA256 [32]byte     // SHA-256 of Info, which is what gets signed
	Tree       *tree.Tree   // every digest in it is covered by Info
	Layout     piece.Layout // how the tree's stream is cut
	Pieces     Pieces       // as many as Layout has
	Trackers   []string     // each a tier of its own (BEP 12)
	WebSeeds   []string     // BEP 19
	Statement  []byte       // what was signed, nil if nothing was
	Signature  []byte       // over Statement
}

// Create returns the metainfo of a release. Equal arguments give equal bytes
// on every machine: there is no date in it. Every digest of t should be known
// by now (Tree.WithSums).
func Create(t *tree.Tree, p Params) ([]byte, error) {
	m := &Metainfo{Name: p.Name, Trackers: p.Trackers, WebSeeds: p.WebSeeds, Statement: p.Statement, Signature: p.Signature}
	err := ValidName(p.Name)
	if err == nil {
		err = m.check()
	}
	if err == nil {
		err = checkPieces(piece.Layout{Total: t.Total(), Length: t.PieceLength()}, p.Pieces)
	}
	if err == nil {
		m.Info, err = encodeInfo(t, lastSegment(p.Name), p.Pieces)
	}
	if err != nil {
		return nil, invalid(err)
	}
	out := m.Encode()
	if len(out) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes; %d are the limit: publish the directory in parts", ErrInvalid, len(out), MaxSize)
	}
	return out, nil
}

func invalid(err error) error {
	if errors.Is(err, ErrInvalid) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrInvalid, err)
}

// Encode returns the metainfo as a .torrent file holds it. The info dictionary
// goes in unchanged. What was set since Parse is written as it is; Parse tells
// whether it is right.
func (m *Metainfo) Encode() []byte {
	b := append(make([]byte, 0, len(m.Info)+4096), 'd')
	if len(m.Trackers) > 0 {
		b = appendString(appendString(b, "announce"), m.Trackers[0])
	}
	if len(m.Trackers) > 1 { // BEP 12
		b = append(appendString(b, "announce-list"), 'l')
		for i := range m.Trackers {
			b = appendList(b, m.Trackers[i:i+1])
		}
		b = append(b, 'e')
	}
	b = appendString(appendString(b, "created by"), "dcfs")
	b = append(appendString(b, "dcfs"), 'd')
	b = appendString(appendString(b, "name"), m.Name)
	if len(m.Signature) > 0 {
		b = appendString(appendString(b, "signature"), m.Signature)
	}
	if len(m.Statement) > 0 {
		b = appendString(appendString(b, "statement"), m.Statement)
	}
	b = append(b, 'e')
	b = append(appendString(b, "info"), m.Info...)
	if len(m.WebSeeds) > 0 { // BEP 19
		b = appendList(appendString(b, "url-list"), m.WebSeeds)
	}
	return append(b, 'e')
}

// Parse reads metainfo that may come from anybody, at memory bounded by its
// length. It proves that the info dictionary is the one that Create makes of
// the tree inside, so that stock clients and dcfs agree on the payload.
// Unknown keys beside the info dictionary are ignored, inside it refused.
// Errors wrap ErrInvalid.
func Parse(b []byte) (*Metainfo, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes; %d are the limit", ErrInvalid, len(b), MaxSize)
	}
	top, err := parseDict(b)
	if err != nil {
		return nil, invalid(err)
	}
	info, ok := top["info"]
	if !ok {
		return nil, fmt.Errorf("%w: there is no info dictionary in it", ErrInvalid)
	}
	m, err := ParseInfo(info)
	if err != nil {
		return nil, err
	}
	if err := m.around(top); err != nil {
		return nil, invalid(err)
	}
	return m, nil
}

// around reads what lies around the info dictionary.
func (m *Metainfo) around(top dict) error {
	own, err := top.dict("dcfs")
	if err != nil {
		return err
	}
	name, err := own.string("name")
	if err != nil {
		return err
	}
	if name != nil {
		if lastSegment(string(name)) != m.Name {
			return fmt.Errorf("it is named %.100q outside and %q inside", name, m.Name)
		}
		m.Name = string(name)
	}
	if err := ValidName(m.Name); err != nil {
		return err
	}
	if m.Statement, err = own.string("statement"); err != nil {
		return err
	}
	if m.Signature, err = own.string("signature"); err != nil {
		return err
	}
	if m.Trackers, err = urls(top["announce-list"]); err != nil {
		return fmt.Errorf("announce-list: %w", err)
	}
	if len(m.Trackers) == 0 { // BEP 12: announce counts only without a list
		if m.Trackers, err = urls(top["announce"]); err != nil {
			return fmt.Errorf("announce: %w", err)
		}
	}
	if m.WebSeeds, err = urls(top["url-list"]); err != nil {
		return fmt.Errorf("url-list: %w", err)
	}
	return m.check()
}

func urls(raw []byte) ([]string, error) {
	if raw == nil {
		return nil, nil
	}
	return flatten(nil, raw)
}

// check holds what is not part of the info dictionary against its bounds.
func (m *Metainfo) check() error {
	if err := checkSigned(m.Statement, m.Signature); err != nil {
		return err
	}
	for _, list := range [][]string{m.Trackers, m.WebSeeds} {
		if len(list) > maxURLs {
			return fmt.Errorf("%d URLs; %d are the limit", len(list), maxURLs)
		}
		for _, s := range list {
			if err := checkURL(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkSigned(statement, signature []byte) error {
	if len(statement) > maxSigned || len(signature) > maxSigned {
		return fmt.Errorf("a statement of %d and a signature of %d bytes; %d are the limit",
			len(statement), len(signature), maxSigned)
	}
	return nil
}

func checkURL(s string) error {
	if u, err := url.Parse(s); len(s) > maxURL || err != nil || u.Scheme == "" || u.Host == "" {
		return fmt.Errorf("%.100q is no URL such as http://host:7070/announce", s)
	}
	return nil
}

func lastSegment(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// ValidName returns an error that wraps ErrInvalid unless name can name a
// release: path segments of [A-Za-z0-9._+-], none starting with a dot.
func ValidName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("%w: a release's name of %d bytes; %d are the limit", ErrInvalid, len(name), maxName)
	}
	for s := range strings.SplitSeq(name, "/") {
		if err := validSegment(s); err != nil {
			return fmt.Errorf("%w: the release's name %q: %w", ErrInvalid, name, err)
		}
	}
	return nil
}

func validSegment(s string) error {
	const others = "._+-"
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(others, c) >= 0) {
			return fmt.Errorf("%.40q has a %q in it; letters, digits and %s may be", s, c, others)
		}
	}
	if s == "" || s[0] == '.' || len(s) > maxPart {
		return fmt.Errorf("the segment %.40q is empty, starts with a dot or is longer than %d bytes", s, maxPart)
	}
	return nil
}
