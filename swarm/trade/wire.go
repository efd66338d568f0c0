// Package trade decides who asks whom for which piece, and what is sent next,
// between dcfs hosts. docs/swarm.md tells the plan.
//
// It is arithmetic over events: it must never do I/O, start a goroutine, read a
// clock or know the torrent library, so that a test or a simulation can drive
// it. Its types are not safe for concurrent use; memory is bounded by the number
// of pieces times the number of peers.
package trade

import (
	"encoding/binary"
	"errors"

	"dcfs/cache/piece"
)

// Extension is the name of the protocol in the extended handshake (BEP 10).
const Extension = "dcfs_trade"

// Steering is a second name there, of a host that offers its pieces one by one;
// see Offer.
const Steering = "dcfs_steer"

// InRack begins a third name there, of a host that says in which rack it stands:
// the rack's name follows. MaxRack bounds that, in bytes.
const (
	InRack  = "dcfs_rack="
	MaxRack = 64
)

// BlockLength is how many bytes of a piece one message carries. The library
// takes messages of up to 64 KiB.
const BlockLength = 32 << 10

// Kind is what a message says.
type Kind byte

const (
	Offer  Kind = iota + 1 // from a seeder that steers: fetch this piece here
	Open                   // from a seeder that steers: every piece is out, ask for any
	Want                   // send me this piece, to the Degree that Off says
	Cancel                 // do not, unless you have begun; a Reject answers
	Reject                 // I do not send this piece; also: I do not want your offer
	Data                   // a block of a piece
	Ack                    // Off bytes of data came
	Have                   // I have Pieces
	Hurry                  // what I asked for goes before the rest now, likewise
	Calm                   // somebody waits here: keep no more than Off bytes under way to me for a while, nothing of the rest with 0
	last   = Calm
)

// Degree is how much a piece goes before others on its way.
type Degree uint8

const (
	Rest   Degree = iota // after all that goes before
	Soon                 // before the rest that goes to the same host: it is read soon
	Urgent               // before all that is not urgent: somebody waits for it
)

// degree of a piece that is wanted so much.
func degree(u piece.Urgency) Degree {
	switch {
	case u == piece.Demand:
		return Urgent
	case u > piece.Background:
		return Soon
	}
	return Rest
}

// Message is one message of the protocol.
type Message struct {
	Kind  Kind
	Piece piece.Index
	Off   int64  // where Data begins in the piece; the bytes of an Ack; of a Want or Hurry the Degree; see Calm
	Data  []byte // shares memory with what was decoded

	Pieces []piece.Index // of a Have, at most maxNews
}

const (
	headerLength = 9
	maxNews      = 1024
)

var errMessage = errors.New("malformed trade message")

// Encode writes a message as bytes.
func (m Message) Encode() []byte {
	return m.Append(make([]byte, 0, headerLength+len(m.Data)+4*len(m.Pieces)))
}

// Append writes a message as bytes behind those of b.
func (m Message) Append(b []byte) []byte {
	b = append(b, byte(m.Kind))
	b = binary.BigEndian.AppendUint32(b, uint32(m.Piece))
	b = binary.BigEndian.AppendUint32(b, uint32(m.Off))
	b = append(b, m.Data...)
	for _, i := range m.Pieces {
		b = binary.BigEndian.AppendUint32(b, uint32(i))
	}
	return b
}

// Decode reads what a peer sent, for a release of n pieces.
func Decode(b []byte, n int) (Message, error) {
	if len(b) < headerLength || len(b) > headerLength+BlockLength {
		return Message{}, errMessage
	}
	m := Message{
		Kind: Kind(b[0]), Off: int64(binary.BigEndian.Uint32(b[5:])),
		Piece: piece.Index(binary.BigEndian.Uint32(b[1:])), Data: b[headerLength:],
	}
	if m.Kind < Offer || m.Kind > last || m.Piece < 0 || int(m.Piece) >= n {
		return Message{}, errMessage
	}
	if m.Kind == Have {
		return m.decodeNews(n)
	}
	if (m.Kind == Want || m.Kind == Hurry) && m.Off > int64(Urgent) {
		return Message{}, errMessage
	}
	if (len(m.Data) > 0) != (m.Kind == Data) {
		return Message{}, errMessage
	}
	return m, nil
}

// decodeNews reads the pieces of a Have.
func (m Message) decodeNews(n int) (Message, error) {
	b := m.Data
	m.Data = nil
	if len(b) == 0 || len(b)%4 != 0 || len(b) > 4*maxNews {
		return Message{}, errMessage
	}
	for ; len(b) > 0; b = b[4:] {
		i := binary.BigEndian.Uint32(b)
		if int64(i) >= int64(n) {
			return Message{}, errMessage
		}
		m.Pieces = append(m.Pieces, piece.Index(i))
	}
	return m, nil
}
