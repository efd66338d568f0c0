package board

import "time"

// Schema is the version of the JSON below. Fields may be added, never renamed
// or removed.
const Schema = 1

// How long the lists in one answer may be.
const (
	MaxReleases = 100
	MaxHosts    = 200 // on one page of hosts
	MaxEvents   = 128 // routine ones, and as many that are trouble
	maxWaits    = 8   // of one host
	stripCells  = 64  // of one host
)

// Overview is everything at a glance: GET /v1/board.
type Overview struct {
	Schema  int       `json:"schema"`
	Kind    string    `json:"kind"` // origin or node
	Name    string    `json:"name"` // of this host
	Program string    `json:"program"`
	Started time.Time `json:"started"`
	Now     time.Time `json:"now"`

	Sums
	Releases []Release `json:"releases"` // those with hosts first, then the newest
	Total    int       `json:"releases_total"`
	Events   []Event   `json:"events"` // newest first
}

// Sums are figures of many hosts together. Sizes are bytes, rates bytes a second.
type Sums struct {
	Hosts     int            `json:"hosts"`     // that are there: they report, or announce themselves to the tracker
	Reporting int            `json:"reporting"` // of them, those that report
	Whole     int            `json:"whole"`     // of them, those that have everything
	States    map[string]int `json:"states"`    // all that are listed, also those that have left
	Attention int            `json:"attention"` // hosts that failed, are lost, are stalled, or let a read wait for 5 seconds
	DownRate  int64          `json:"down_rate"`
	UpRate    int64          `json:"up_rate"` // of the hosts
	Sent      int64          `json:"sent"`    // by the origin, to peers
	SentRate  int64          `json:"sent_rate"`
	Waiting   int            `json:"waiting"`        // pieces that reads wait for
	OldestMS  int64          `json:"oldest_wait_ms"` // of these waits
	Origin    int64          `json:"bytes_origin"`   // what hosts got from origins
	Peers     int64          `json:"bytes_peers"`    // from one another
	Reuse     int64          `json:"bytes_reused"`   // from what they had
}

// Release is a release and how far its hosts are.
type Release struct {
	Base
	Sums
	Progress float64 `json:"progress"`        // of all hosts that are there, 0 to 1
	Copies   float64 `json:"copies"`          // how often the origin has sent the release's size
	Rarest   int     `json:"rarest"`          // hosts that have the part that the fewest have
	EtaMS    int64   `json:"eta_ms"`          // of the host that is last; 0: none known
	Kinds    []Kind  `json:"bounds"`          // what bounds hosts now, most frequent first
	Cells    []int   `json:"cells,omitempty"` // hosts that have each part; in Detail only
	Mine     []int   `json:"mine,omitempty"`  // how much of each part this node has, of 255; in Detail of a node only
}

// Kind is how many hosts something bounds.
type Kind struct {
	Kind  string `json:"kind"`
	Hosts int    `json:"hosts"`
}

// Base is what does not change about a release.
type Base struct {
	Version     string    `json:"version"`
	Infohash    string    `json:"infohash"`
	Bytes       int64     `json:"bytes"`
	Files       int       `json:"files"`
	Pieces      int       `json:"pieces"`
	PieceLength int64     `json:"piece_length"`
	Signed      bool      `json:"signed"`
	KeyID       string    `json:"key_id,omitempty"`
	Created     time.Time `json:"created,omitzero"`
}

// Host is one host. Who only announced itself to the tracker, as stock clients
// do, has fewer figures.
type Host struct {
	Name    string `json:"name"` // its own word, or empty
	Addr    string `json:"addr"` // where it accepts peers
	Rack    string `json:"rack,omitempty"`
	Client  string `json:"client,omitempty"` // of who does not report
	Reports bool   `json:"reports"`
	Self    bool   `json:"self,omitempty"` // the node that is asked

	State    string  `json:"state"` // as in dcfs status; or lost, and seeding or fetching for who does not report
	Reason   string  `json:"reason,omitempty"`
	SinceMS  int64   `json:"since_ms"` // in this state
	SeenMS   int64   `json:"seen_ms"`  // since it was heard of last
	Have     int64   `json:"have"`     // bytes
	Progress float64 `json:"progress"`
	Stalled  bool    `json:"stalled,omitempty"`

	DownRate  int64  `json:"down_rate"`
	UpRate    int64  `json:"up_rate"`
	Peers     int    `json:"peers"`
	Origin    int64  `json:"bytes_origin"`
	FromPeers int64  `json:"bytes_peers"`
	Reuse     int64  `json:"bytes_reused"`
	FirstMS   int64  `json:"first_byte_ms,omitempty"`
	EtaMS     int64  `json:"eta_ms,omitempty"`
	Waiting   int    `json:"waiting"`
	OldestMS  int64  `json:"oldest_wait_ms,omitempty"`
	Waits     []Wait `json:"waits,omitempty"`
	Bound     string `json:"bound,omitempty"`
	BoundText string `json:"bound_text,omitempty"`
	// Strip is how much of each 64th of the release it has, 0 to 255.
	Strip []byte `json:"strip,omitempty"`

	cells []byte // as in a report; nil for nothing or everything
}

// Wait is a piece that somebody on a host reads and that is not there yet.
type Wait struct {
	Path    string `json:"path,omitempty"`
	Piece   int    `json:"piece"`
	AgeMS   int64  `json:"age_ms"`
	Readers int    `json:"readers"`
}

// Detail is one release with a page of its hosts: GET /v1/hosts?release=VERSION.
// Those that need attention come first, then those that have least.
type Detail struct {
	Schema  int       `json:"schema"`
	Now     time.Time `json:"now"`
	Release Release   `json:"release"`
	Hosts   []Host    `json:"hosts"`
	Matched int       `json:"matched"` // hosts that the question fits
	Offset  int       `json:"offset"`
}

// Event is something that happened. The same thing on many hosts within a few
// seconds is one event.
type Event struct {
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`
	Bad     bool      `json:"bad,omitempty"`
	Version string    `json:"version,omitempty"`
	Host    string    `json:"host,omitempty"`
	More    int       `json:"more,omitempty"` // further hosts
	Text    string    `json:"text,omitempty"`
}
