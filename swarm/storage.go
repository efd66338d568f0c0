package swarm

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"

	"dcfs/cache/piece"
)

// Store is where a swarm's pieces come from and go to. Its methods are called
// concurrently. WriteChunk gets bytes that nobody checked; Verify is what makes
// a piece readable, and returns the SHA-1 that it found.
type Store interface {
	WriteChunk(i piece.Index, p []byte, off int64) error
	ReadChunk(i piece.Index, p []byte, off int64) error
	Verify(i piece.Index) ([sha1.Size]byte, error)
	Drop(i piece.Index)
	Have(i piece.Index) bool
}

// storeClient shows a Store to the library as its storage.
type storeClient struct {
	store   Store
	watcher pieceWatcher // may be nil

	mu     sync.RWMutex
	failed map[piece.Index]bool // pieces whose hash was wrong the last time
}

// pieceWatcher is told what the library makes of pieces.
type pieceWatcher interface {
	done(piece.Index)    // it is here
	suspect(piece.Index) // the library may see it wrongly; its lock may be held
	wrong(piece.Index)   // its hash was wrong; the library's lock may be held
}

func newStoreClient(s Store, w pieceWatcher) *storeClient {
	return &storeClient{store: s, watcher: w, failed: make(map[piece.Index]bool)}
}

func (c *storeClient) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{
		Piece: c.piece,
		Close: func() error { return nil },
	}, nil
}

// piece is called anew for every use that the library makes of a piece.
func (c *storeClient) piece(p metainfo.Piece) storage.PieceImpl {
	sp := storePiece{c, piece.Index(p.Index())}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.failed[sp.index] {
		return comparedPiece{sp, p.Length()}
	}
	return hashedPiece{sp}
}

func (c *storeClient) setFailed(i piece.Index, failed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if failed {
		c.failed[i] = true
	} else {
		delete(c.failed, i)
	}
}

// storePiece is one piece of a Store.
type storePiece struct {
	client *storeClient
	index  piece.Index
}

func (p storePiece) ReadAt(b []byte, off int64) (int, error) {
	if err := p.client.store.ReadChunk(p.index, b, off); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p storePiece) WriteAt(b []byte, off int64) (int, error) {
	if err := p.client.store.WriteChunk(p.index, b, off); err != nil {
		return 0, err
	}
	return len(b), nil
}

// MarkComplete refuses a piece that the store does not have. The library logs
// that and calls the piece complete nevertheless, so it is to ask again.
func (p storePiece) MarkComplete() error {
	p.client.setFailed(p.index, false)
	w := p.client.watcher
	if p.client.store.Have(p.index) {
		if w != nil {
			w.done(p.index)
		}
		return nil
	}
	if w != nil {
		w.suspect(p.index)
	}
	return fmt.Errorf("piece %d was not verified by the store", p.index)
}

func (p storePiece) MarkNotComplete() error {
	p.client.setFailed(p.index, true)
	p.client.store.Drop(p.index)
	if w := p.client.watcher; w != nil {
		w.wrong(p.index)
		w.suspect(p.index)
	}
	return nil
}

func (p storePiece) Completion() storage.Completion {
	return storage.Completion{Ok: true, Complete: p.client.store.Have(p.index)}
}

// hashedPiece hashes by itself: Verify does so without a second copy of the
// bytes, and outside the library's lock.
type hashedPiece struct{ storePiece }

var _ storage.SelfHashing = hashedPiece{}

func (p hashedPiece) SelfHash() (metainfo.Hash, error) { return p.client.store.Verify(p.index) }

// comparedPiece is a piece whose hash was wrong the last time. The library is
// shown its bytes, so that when they are right it can tell from the blocks of
// the former attempt which of several peers lied, and bans that one. It cannot
// with a hashedPiece, and a liar could spoil every attempt.
type comparedPiece struct {
	storePiece
	length int64
}

var _ io.WriterTo = comparedPiece{}

// WriteTo gives the library the piece if it is right, and else nothing at all,
// which has the wrong hash too.
func (p comparedPiece) WriteTo(w io.Writer) (int64, error) {
	if _, err := p.client.store.Verify(p.index); err != nil || !p.client.store.Have(p.index) {
		return 0, err
	}
	b := make([]byte, p.length)
	if err := p.client.store.ReadChunk(p.index, b, 0); err != nil {
		return 0, err
	}
	n, err := w.Write(b)
	return int64(n), err
}

// noStore is the store of a swarm that is joined for its metadata only: it has
// nothing and takes nothing.
type noStore struct{}

var errNoStore = errors.New("only the metadata is wanted")

func (noStore) WriteChunk(piece.Index, []byte, int64) error       { return errNoStore }
func (noStore) ReadChunk(piece.Index, []byte, int64) error        { return errNoStore }
func (noStore) Verify(piece.Index) (sum [sha1.Size]byte, _ error) { return sum, errNoStore }
func (noStore) Drop(piece.Index)                                  {}
func (noStore) Have(piece.Index) bool                             { return false }
