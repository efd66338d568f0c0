// Package reuse fills a release from directories that are on this host
// already: older releases, or whatever else may have some of its bytes.
//
// What it knows of those directories is a hint and no more. Every piece that
// is put together from them goes through the store's door and is hashed there
// against the release, so directories that lie, are damaged or change while
// they are read cost time and nothing else.
//
// The package must never write to an old directory, leave it through a symlink,
// open anything but regular files in it, or hold a reader up: a piece that
// somebody waits for is left to the peers that are asked for it.
package reuse

import (
	"context"
	"crypto/sha1"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"dcfs/cache/piece"
	"dcfs/fs/tree"
)

// MaxSources is how many directories are looked at; further ones are left out.
const MaxSources = 16

// Store is where the pieces go (cache.Store).
type Store interface {
	Have(i piece.Index) bool
	// Offer hashes a piece and takes it if it is right.
	Offer(i piece.Index, data []byte) (bool, error)
	// Claim takes note of pieces that were put into the backing unhashed.
	Claim(set *piece.Set) *piece.Set
	// Scrub hashes what is claimed, and forgets what is wrong.
	Scrub(ctx context.Context)
}

// Known is what an older release is said to consist of.
type Known struct {
	Tree   *tree.Tree
	Layout piece.Layout
	Hash   func(piece.Index) [sha1.Size]byte
}

// Source is a directory that may have bytes of the release.
type Source struct {
	Dir string
	// Load returns what the directory is said to hold. Nil, or an error: that
	// is not known, and files are looked for under the paths of the release.
	Load func() (Known, error)
}

// Config says what to fill and from where.
type Config struct {
	Tree    *tree.Tree
	Layout  piece.Layout
	Hash    func(piece.Index) [sha1.Size]byte
	Store   Store
	Sources []Source

	// Clone, if set, makes the content of a file that of an open one without
	// reading it. An error means that the bytes are read and offered instead;
	// when it wraps NoClone, the source is not asked again.
	Clone   func(tree.ID, *os.File) error
	NoClone error

	// Decided, if set, is told of each held piece once: it is here now, or
	// nothing local has it.
	Decided func(piece.Index)
	Log     *slog.Logger
}

// Stats says what came of it. Bytes are of payload.
type Stats struct {
	Bytes   int64         // of pieces that were verified from local bytes
	Pieces  int           // as many
	Cloned  int64         // bytes of files whose blocks are shared
	Scanned int64         // bytes that were searched for moved content
	Moved   int           // pieces that the search found
	Wrong   int           // pieces that were tried, and local bytes were others
	Took    time.Duration // of Run
}

// Reuse is a plan and its execution. Its methods are for one goroutine.
type Reuse struct {
	cfg     Config
	sources []*source
	plan    plan
	held    *piece.Set
	open    *piece.Set // held and not decided yet
	stats   Stats
	bytes   atomic.Int64 // stats.Bytes, for Bytes
}

// Bytes returns how many bytes were verified from local ones so far. It may be
// called from any goroutine.
func (r *Reuse) Bytes() int64 { return r.bytes.Load() }

// New looks at what the sources are said to have and at nothing that takes
// long: no content is read. Sources that cannot be opened are left out, with a
// word in the log. Close gives the descriptors back.
func New(ctx context.Context, cfg Config) *Reuse {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Decided == nil {
		cfg.Decided = func(piece.Index) {}
	}
	r := &Reuse{cfg: cfg}
	r.plan.init(cfg.Tree)
	for _, s := range cfg.Sources {
		if ctx.Err() != nil || len(r.sources) == MaxSources {
			break
		}
		src, err := openSource(s.Dir)
		if err != nil {
			cfg.Log.Warn("an older release cannot be reused", "dir", s.Dir, "cause", err)
			continue
		}
		r.sources = append(r.sources, src)
		r.match(s, uint8(len(r.sources)-1))
	}
	r.held = r.hold()
	r.open = r.held.Clone()
	return r
}

// match adds to the plan what a source is said to have.
func (r *Reuse) match(s Source, at uint8) {
	if s.Load == nil {
		r.plan.matchPaths(at)
		return
	}
	known, err := s.Load()
	if err != nil {
		r.cfg.Log.Info("it is not known which release a directory is; looking at its paths", "dir", s.Dir, "cause", err)
		r.plan.matchPaths(at)
		return
	}
	r.plan.matchFiles(at, known.Tree)
	r.matchPieces(at, known)
}

// Held returns the pieces that the sources may have, and that need not be
// fetched before Decided said so.
func (r *Reuse) Held() *piece.Set { return r.held }

// Close closes the directories and forgets the plan. Bytes may still be asked.
func (r *Reuse) Close() error {
	r.plan, r.held, r.open = plan{}, nil, nil
	var errs []error
	for _, s := range r.sources {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// decide tells that a piece is no longer held.
func (r *Reuse) decide(i piece.Index) {
	if r.open.Remove(i) {
		r.cfg.Decided(i)
	}
}
