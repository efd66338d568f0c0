package origin

import (
	"encoding/hex"
	"os"
	"time"

	"dcfs/cmd/internal/board"
	"dcfs/swarm/tracker"
)

func (s *service) swarms() map[[20]byte]tracker.Swarm {
	out := make(map[[20]byte]tracker.Swarm)
	for _, sw := range s.tracker.Snapshot() {
		out[sw.Infohash] = sw
	}
	return out
}

// newBoard is the page: the releases, the hosts that report, and those that the
// tracker knows beside them.
func (s *service) newBoard() *board.Board {
	name, _ := os.Hostname()
	return board.New(board.Config{
		Kind: board.KindOrigin, Name: name, Program: s.version, Releases: s.boardReleases, Others: s.boardOthers,
		Find: func(infohash string) (board.Base, bool) {
			raw, err := hex.DecodeString(infohash)
			if err != nil || len(raw) != 20 {
				return board.Base{}, false
			}
			rel := s.shelf.known([20]byte(raw))
			if rel == nil {
				return board.Base{}, false
			}
			return rel.base(), true
		},
	})
}

// base is what the board tells of a release. Hosts count its bytes with padding.
func (r *seeded) base() board.Base {
	created := r.about.Created
	if created.IsZero() {
		created = r.since.UTC().Round(time.Second)
	}
	return board.Base{
		Version: r.version, Infohash: r.about.Infohash, Bytes: r.mi.Layout.Total, Files: r.about.Files, Pieces: r.about.Pieces,
		PieceLength: r.about.PieceLength, Signed: r.about.Signed, KeyID: r.about.KeyID, Created: created,
	}
}

func (s *service) boardReleases() []board.Item {
	all := s.shelf.all()
	out := make([]board.Item, 0, len(all))
	for _, rel := range all {
		out = append(out, board.Item{Base: rel.base(), Sent: rel.swarm.Stats().Sent})
	}
	return out
}

func (s *service) boardOthers() map[string][]board.Other {
	out := make(map[string][]board.Other)
	for hash, sw := range s.swarms() {
		rel := s.shelf.known(hash)
		if rel == nil {
			continue
		}
		total := rel.mi.Layout.Total
		list := make([]board.Other, 0, len(sw.Peers))
		for _, p := range sw.Peers {
			o := board.Other{Addr: p.Addr, Client: clientOf(p.ID), Seen: p.LastSeen, Whole: p.Left == 0}
			if p.Left >= 0 {
				o.Have = total - min(p.Left, total)
			}
			list = append(list, o)
		}
		out[hexHash(hash)] = list
	}
	return out
}

// clientOf is how a peer id names its client, such as -TR4060-.
func clientOf(id [20]byte) string {
	if id[0] != '-' || id[7] != '-' {
		return ""
	}
	return string(id[1:7])
}
