// Package control is how a host's dcfs processes are asked how they are: the
// status types, the server that each process runs on its own unix socket, and
// the client that asks all of them.
//
// It must never change anything: a status question has no effect on the
// process that answers it, and a process that hangs must not make the others
// wait. The JSON names are a contract (schema 1): fields may be added, never
// renamed or removed.
package control

import "time"

// Schema is the version of the JSON that this package speaks.
const Schema = 1

// How long the lists in one answer may be. A status is for looking at, and
// asking must stay cheap on a host with thousands of peers or blocked readers.
const (
	MaxPeerAddrs = 64
	MaxWaiting   = 64
)

// State is where a release stands in its life on this host.
type State string

const (
	// Announced: the process looks for the release and its metadata.
	// Next: Mounted, or Complete (fetch has no mount), or Failed.
	Announced State = "announced"
	// Mounted: the tree is visible and reads are served as pieces come.
	// Next: Complete, Failed.
	Mounted State = "mounted"
	// Complete: every piece is here and verified.
	// Next: Materialised, Failed.
	Complete State = "complete"
	// Materialised: the real copy stands in the destination, synced.
	// Next: Lingering, Done, Failed.
	Materialised State = "materialised"
	// Lingering: the work is done and the process seeds for others.
	// Next: Done, Failed.
	Lingering State = "lingering"
	// Done: the process ended as it should. Last.
	Done State = "done"
	// Failed: it did not; Status.Reason says why. Last, from any state.
	Failed State = "failed"
)

var rank = map[State]int{
	Announced: 1, Mounted: 2, Complete: 3, Materialised: 4, Lingering: 5, Done: 6,
}

// Reached reports whether a release in state s has come as far as want.
// A failed or unknown state has reached nothing.
func (s State) Reached(want State) bool {
	return rank[s] > 0 && rank[want] > 0 && rank[s] >= rank[want]
}

// Status is one process's view of its release at one moment.
type Status struct {
	Schema   int    `json:"schema"`
	PID      int    `json:"pid"`
	Version  string `json:"version"`
	Infohash string `json:"infohash"`

	State      State     `json:"state"`
	Reason     string    `json:"reason,omitempty"` // why it failed
	Started    time.Time `json:"started"`
	StateSince time.Time `json:"state_since"`

	Mountpoint string `json:"mountpoint,omitempty"` // empty for fetch
	Dest       string `json:"dest,omitempty"`
	Activate   string `json:"activate,omitempty"` // symlink that is swapped
	PeerListen string `json:"peer_listen,omitempty"`

	Traffic
	Waiting      []Wait `json:"waiting"`
	Cache        Cache  `json:"cache"`
	LingerLeftMS int64  `json:"linger_left_ms"`       // if nothing changes
	LingerWhy    string `json:"linger_why,omitempty"` // why it seeds on until then

	Bound *Bound `json:"bound,omitempty"` // what bounds the whole release now; nil once it is here
	Held  []Held `json:"held,omitempty"`  // what bounded it how long so far, longest first
}

// Held is how long a release was bounded by one thing (Bound…).
type Held struct {
	Kind string `json:"kind"`
	MS   int64  `json:"ms"`
}

// Traffic is what has come, what is missing and how fast it moves. Sizes are
// bytes of payload, rates are bytes a second.
type Traffic struct {
	Bytes         int64  `json:"bytes"` // size of the release's payload
	BytesHave     int64  `json:"bytes_have"`
	BytesFetched  int64  `json:"bytes_fetched"` // payload received, waste included
	BytesReused   int64  `json:"bytes_reused"`  // verified from what this host had already
	BytesClaimed  int64  `json:"bytes_claimed"` // on disk by what an earlier process recorded, not hashed yet
	BytesResumed  int64  `json:"bytes_resumed"` // of these, what was hashed and is right
	BytesOrigin   int64  `json:"bytes_origin"`  // of what was fetched and new, from peers that call themselves an origin
	BytesPeers    int64  `json:"bytes_peers"`   // likewise from all others
	BytesWebSeed  int64  `json:"bytes_webseed"` // likewise by HTTP, from an origin or a web server
	BytesUploaded int64  `json:"bytes_uploaded"`
	Pieces        int    `json:"pieces"`
	PiecesHave    int    `json:"pieces_have"`
	DownRate      int64  `json:"down_rate"`
	UpRate        int64  `json:"up_rate"`
	Peers         int    `json:"peers"` // connected now
	Seeds         int    `json:"seeds"` // of them, those that hold everything
	PeerAddrs     []Peer `json:"peer_addrs,omitempty"`

	FirstByteMS  int64 `json:"first_byte_ms,omitempty"` // from the start to the first byte of a peer
	EtaMS        int64 `json:"eta_ms,omitempty"`        // until all is here at the rate of the last seconds; 0: not known
	HashFailures int64 `json:"hash_failures"`           // pieces that came with a wrong hash
	Banned       int   `json:"banned"`                  // addresses that are avoided because of them
}

// Peer is one connected peer. Have counts its pieces; rates are bytes a second.
type Peer struct {
	Addr   string `json:"addr"`
	Have   int    `json:"have"`
	Down   int64  `json:"down"`
	Up     int64  `json:"up"`
	Client string `json:"client,omitempty"`
}

// Wait is a piece that somebody reads and that is not here yet.
type Wait struct {
	Path    string    `json:"path,omitempty"`
	Piece   int       `json:"piece"`
	Since   time.Time `json:"since"`
	AgeMS   int64     `json:"age_ms"`
	Readers int       `json:"readers"`
}

// Cache is the piece cache in memory. Budget and Used are bytes.
type Cache struct {
	Budget int64 `json:"budget"`
	Used   int64 `json:"used"`
	Hits   int64 `json:"hits"`
	Misses int64 `json:"misses"`
}

// Source answers a status question. Status is called from several goroutines
// and must not block on the network or on a disk.
type Source interface {
	Status() Status
}

// normal is the status as it goes out: schema set, lists bounded and never null.
func (s Status) normal() Status {
	s.Schema = Schema
	if s.Waiting == nil {
		s.Waiting = []Wait{}
	}
	s.Waiting = s.Waiting[:min(len(s.Waiting), MaxWaiting)]
	s.PeerAddrs = s.PeerAddrs[:min(len(s.PeerAddrs), MaxPeerAddrs)]
	return s
}
