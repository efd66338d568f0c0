package swarm

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"dcfs/swarm/metainfo"
)

// MaxExchanged is how many bytes of metadata the library takes from peers
// (BEP 9). A release of some 150,000 files has more.
const MaxExchanged = 16 << 20

var (
	// ErrNoMetadata is wrapped when no peer gave the info dictionary in time.
	ErrNoMetadata = errors.New("no peer has the release's metadata")
	// ErrTooLarge is wrapped as well when peers have it, and it is too large
	// to come from them.
	ErrTooLarge = errors.New("the metadata is too large for a magnet link")
)

// setInfo tells the library what is exchanged. It keeps half a kilobyte and a
// pass over all files for each piece, if it knows files; so the first thing it
// learns is the payload as one file. The second call then only replaces the
// bytes that it sends to peers who ask for metadata. A library that takes no
// dictionary of another info-hash gets the real one at once.
func setInfo(t *torrent.Torrent, spec Spec) error {
	flat, err := metainfo.Flat(spec.Info, spec.Total)
	if err == nil && spec.Total > 0 {
		_ = t.SetInfoBytes(flat)
	}
	return t.SetInfoBytes(spec.Info)
}

// FetchInfo gets the info dictionary of a swarm from its peers (BEP 9), up to
// MaxExchanged bytes. A wrong one, which the library does not notice, is
// thrown away and asked for again.
func (n *Node) FetchInfo(ctx context.Context, infoHash [20]byte, trackers, peers []string) ([]byte, error) {
	n.oversize.Store(0)
	for {
		info, err := n.fetchInfo(ctx, infoHash, trackers, peers)
		if err != nil || sha1.Sum(info) == infoHash {
			return info, err
		}
		n.log.Warn("a peer sent metadata with another info-hash; asking again", "bytes", len(info))
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

func (n *Node) fetchInfo(ctx context.Context, infoHash [20]byte, trackers, peers []string) ([]byte, error) {
	t, fresh := n.client.AddTorrentOpt(torrent.AddTorrentOpts{
		InfoHash: infoHash, Storage: newStoreClient(noStore{}, nil), DisableInitialPieceCheck: true,
	})
	if !fresh {
		return nil, fmt.Errorf("the swarm %x is joined already", infoHash)
	}
	s := &Swarm{node: n, t: t, log: n.log, asks: newAsks(), hedge: newHedge()}
	s.start(trackers, peers)
	defer s.Leave(ctx)
	select {
	case <-t.GotInfo():
		mi := t.Metainfo()
		return mi.InfoBytes, nil
	case <-ctx.Done():
	}
	if size := n.oversize.Load(); size > 0 {
		return nil, fmt.Errorf("%w: %w: it has %d bytes, and peers exchange up to %d; use the release's .torrent file or the origin instead: %w",
			ErrNoMetadata, ErrTooLarge, size, int64(MaxExchanged), context.Cause(ctx))
	}
	return nil, fmt.Errorf("%w: %w", ErrNoMetadata, context.Cause(ctx))
}

// noteSizes has FetchInfo know of metadata that is too large: the library only
// turns away from the peers that have it.
func (n *Node) noteSizes(c *torrent.Callbacks) {
	next := c.ReadExtendedHandshake
	c.ReadExtendedHandshake = func(p *torrent.PeerConn, m *pp.ExtendedHandshakeMessage) {
		if m.MetadataSize > MaxExchanged {
			n.oversize.Store(int64(m.MetadataSize))
		}
		if next != nil {
			next(p, m)
		}
	}
}
