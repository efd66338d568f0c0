package swarm

import (
	"errors"
	"math"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/bencode"
	pp "github.com/anacrolix/torrent/peer_protocol"
)

// maxMetadataPiece is above every piece of metadata (BEP 9) that there can be.
const maxMetadataPiece = 1 << 16

// guardMessages keeps extension messages (BEP 10) from the library that would
// end this process: it panics at a negative metadata piece and at a metadata
// size that does not fit 32 bits, and recurses as deep as a message nests. The
// hook runs before the library reads the message; what is spoilt there is a
// parse error for it, and the connection is closed.
func guardMessages(c *torrent.Callbacks) {
	c.PeerConnReadExtensionMessage = append(c.PeerConnReadExtensionMessage,
		func(e torrent.PeerConnReadExtensionMessageEvent) {
			if e.ExtensionNumber != pp.HandshakeExtendedID {
				name, _, err := e.PeerConn.LocalLtepProtocolMap.LookupId(e.ExtensionNumber)
				if err != nil || name != pp.ExtensionNameMetadata && name != pp.ExtensionNamePex {
					return // no bencode
				}
			}
			if !harmless(e.Payload) {
				for i := range e.Payload {
					e.Payload[i] = 'x'
				}
			}
		})
}

// harmless says whether the library can be given an extension message: a
// dictionary, and behind it maybe a piece of metadata.
func harmless(payload []byte) bool {
	if len(payload) == 0 || payload[0] != 'd' || shallow(payload) != nil {
		return false
	}
	var m struct {
		Piece int64 `bencode:"piece"`
		Size  int64 `bencode:"metadata_size"`
	}
	err := bencode.Unmarshal(payload, &m)
	if err != nil && !errors.As(err, new(bencode.ErrUnusedTrailingBytes)) {
		return false
	}
	return m.Piece >= 0 && m.Piece < maxMetadataPiece && m.Size >= 0 && m.Size <= math.MaxUint32
}
