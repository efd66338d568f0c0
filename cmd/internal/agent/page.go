package agent

import (
	"context"
	"encoding/hex"
	"net/netip"
	"os"
	"time"

	"dcfs/cache/piece"
	"dcfs/cmd/internal/board"
	"dcfs/swarm"
)

// newBoard is the page of --http: this host and its peers.
func (l *life) newBoard() *board.Board {
	name, _ := os.Hostname()
	return board.New(board.Config{
		Kind: board.KindNode, Name: name, Program: l.cfg.Version, Others: l.boardPeers,
		Releases: func() []board.Item {
			if base, ok := l.boardBase(); ok {
				return []board.Item{{Base: base, Sent: l.Status().BytesUploaded}}
			}
			return nil
		},
		Find: func(infohash string) (board.Base, bool) {
			base, ok := l.boardBase()
			return base, ok && base.Infohash == infohash
		},
	})
}

func (l *life) boardBase() (board.Base, bool) {
	l.mu.Lock()
	rel := l.rel
	l.mu.Unlock()
	if rel == nil {
		return board.Base{}, false
	}
	return board.Base{
		Version: rel.Name, Infohash: hex.EncodeToString(rel.InfoHash[:]), Bytes: rel.Layout.Total, Files: rel.Tree.Files(),
		Pieces: rel.Layout.Count(), PieceLength: rel.Layout.Length, Signed: rel.Signed, KeyID: rel.KeyID, Created: rel.Created,
	}, true
}

// tellPage reports this host to its own page until ctx ends.
func (l *life) tellPage(ctx context.Context, b *board.Board) {
	for sleepUnless(ctx, time.Second, nil) {
		r := l.report()
		self, _ := netip.ParseAddrPort(r.PeerListen)
		if _, err := b.Accept(r, self.Addr()); err != nil {
			l.log.Debug("the page", "cause", err)
		}
	}
}

// boardPeers are the peers of the moment, with what they have.
func (l *life) boardPeers() map[string][]board.Other {
	l.mu.Lock()
	rel, ready := l.rel, l.ready
	l.mu.Unlock()
	if !ready {
		return nil
	}
	var out []board.Other
	for _, link := range l.swarm.Links() {
		addr, err := netip.ParseAddrPort(link.Addr)
		if err != nil {
			continue
		}
		out = append(out, peerOf(link, addr, rel.Layout))
	}
	return map[string][]board.Other{hex.EncodeToString(rel.InfoHash[:]): out}
}

func peerOf(link swarm.Link, addr netip.AddrPort, layout piece.Layout) board.Other {
	has := piece.NewSet(layout.Count())
	o := board.Other{Addr: addr, Client: link.Client}
	for i := range piece.Index(layout.Count()) {
		if link.Has(i) {
			has.Add(i)
			o.Have += layout.Size(i)
		}
	}
	o.Whole, o.Cells = has.Full(), board.Cells(has)
	return o
}
