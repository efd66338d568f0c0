// Package release seals and opens signed releases. A release is a BitTorrent
// metainfo with a small statement and a minisign signature beside it; the
// statement names the release and holds the SHA-256 of the info dictionary, so
// that SHA-1 alone is never the root of trust.
//
// Only Open, OpenParsed and OpenMagnet yield a *Release: an unverified one has
// no type. The package must never talk to a network, never weaken a check
// because of what it reads, and never hand out a secret key.
package release

import (
	"crypto/sha1"
	"errors"
	"time"

	"dcfs/cache/piece"
	"dcfs/fs/tree"
	"dcfs/swarm/metainfo"
)

// ErrUntrusted is wrapped by every error about a release that is not to be
// believed: unsigned, signed by an unknown key, tampered with, another one
// than asked for, expired or not valid yet.
var ErrUntrusted = errors.New("untrusted release")

// ErrKey is wrapped by every error about a key file that cannot be used.
var ErrKey = errors.New("unusable key")

// ErrExists is wrapped when GenerateKey would have to overwrite a file.
var ErrExists = errors.New("already there")

// Release is a release that was opened: its signature was checked, or the
// caller allowed it to have none. It must not be changed, nor made in another
// way than by opening; then it is safe for concurrent use.
//
// Trackers and WebSeeds are the only fields that no signature covers: they say
// where to ask, never what to believe.
type Release struct {
	Name     string       // such as "app/1.0"
	InfoHash [20]byte     // by which the swarm knows it
	Info     []byte       // the raw info dictionary (BEP 3)
	Metainfo []byte       // the whole metainfo with statement and signature
	Tree     *tree.Tree   // metadata, extents, SHA-256 of every file
	Layout   piece.Layout // how the payload stream is cut
	Trackers []string
	WebSeeds []string

	Signed  bool
	KeyID   string    // of the key that signed, as minisign prints it
	Created time.Time // zero when it is not signed
	Expires time.Time // zero for never

	pieces metainfo.Pieces
}

// Hash returns the SHA-1 of piece i, which must be in the layout.
func (r *Release) Hash(i piece.Index) [sha1.Size]byte { return r.pieces.Hash(i) }
