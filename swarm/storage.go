package swarm

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"

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
type storeClient struct{ store Store }

func (c storeClient) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{
		Piece: func(p metainfo.Piece) storage.PieceImpl {
			return storePiece{c.store, piece.Index(p.Index())}
		},
		Close: func() error { return nil },
	}, nil
}

// storePiece is one piece of a Store. It hashes by itself: Verify does so
// without a second copy of the bytes, and outside the library's lock.
type storePiece struct {
	store Store
	index piece.Index
}

var _ storage.SelfHashing = storePiece{}

func (p storePiece) ReadAt(b []byte, off int64) (int, error) {
	if err := p.store.ReadChunk(p.index, b, off); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p storePiece) WriteAt(b []byte, off int64) (int, error) {
	if err := p.store.WriteChunk(p.index, b, off); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p storePiece) SelfHash() (metainfo.Hash, error) {
	sum, err := p.store.Verify(p.index)
	return sum, err
}

func (p storePiece) MarkComplete() error {
	if !p.store.Have(p.index) {
		return fmt.Errorf("piece %d was not verified by the store", p.index)
	}
	return nil
}

func (p storePiece) MarkNotComplete() error {
	p.store.Drop(p.index)
	return nil
}

func (p storePiece) Completion() storage.Completion {
	return storage.Completion{Ok: true, Complete: p.store.Have(p.index)}
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
