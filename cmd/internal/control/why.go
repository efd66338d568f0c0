package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

const whyPath = "/v1/why"

// MaxWhyPieces bounds the pieces of one answer: of a longer file those that are
// waited for, those on their way, the missing, and then the ones that are here.
const MaxWhyPieces = 256

// What holds a transfer up, in the order in which it is looked for.
const (
	BoundNone    = "none"           // nothing: it is all here
	BoundStart   = "starting"       // the release's metadata or the swarm is being looked for
	BoundDisk    = "disk"           // the disk refuses pieces, or takes them slower than they come
	BoundNoPeers = "no-peers"       // nobody is connected
	BoundWebSeed = "web-seed"       // no peer serves, a web seed does
	BoundNobody  = "nobody-has-it"  // peers are, and none has what is missing
	BoundChoked  = "choked"         // those that have it take no requests
	BoundDownCap = "down-cap"       // --down
	BoundSilent  = "peer-silent"    // those that were asked send nothing
	BoundCPU     = "cpu"            // this process gets no more of the processor
	BoundNetwork = "peers-and-link" // bytes come as fast as peers and network bring them
)

// Errors of Why.
var (
	// ErrNoFile says that the release has no such file.
	ErrNoFile = errors.New("no such file in the release")
	// ErrTooEarly says that the process does not know the release's files yet.
	ErrTooEarly = errors.New("the release's metadata is not here yet")
)

// Why says of one file of a release where its bytes are, and what they wait for.
type Why struct {
	Schema  int    `json:"schema"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
	State   State  `json:"state"`
	Path    string `json:"path"` // inside the release

	Bytes       int64 `json:"bytes"`
	PieceLength int64 `json:"piece_length"`
	PiecesTotal int   `json:"pieces_total"`
	PiecesHave  int   `json:"pieces_have"`
	Readers     int   `json:"readers"` // reads that are blocked on it

	Bound   Bound   `json:"bound"` // what bounds the transfer now
	Pieces  []Piece `json:"pieces"`
	LeftOut int     `json:"pieces_left_out"` // how many pieces the list has not
	Links   []Link  `json:"links"`
}

// Bound is what holds a transfer up at this moment.
type Bound struct {
	Kind  string     `json:"kind"`
	Text  string     `json:"text"`
	Since *time.Time `json:"since,omitempty"`
	Try   string     `json:"try,omitempty"`
}

// Piece is one piece of the file.
type Piece struct {
	Piece int    `json:"piece"`
	State string `json:"state"` // verified, claimed (on disk, not hashed yet), arriving, absent
	// From are those that it came from: addresses, "disk" for what a former
	// process left, "reuse" for what other directories of this host had.
	From    []string   `json:"from,omitempty"`
	Holders []string   `json:"holders,omitempty"` // connected peers that have it
	Asked   []Asked    `json:"asked,omitempty"`   // whom it is asked of now
	Readers int        `json:"readers,omitempty"`
	Since   *time.Time `json:"since,omitempty"` // since when it is read
	AgeMS   int64      `json:"age_ms,omitempty"`
}

// Asked is a peer that owes blocks of a piece.
type Asked struct {
	Addr  string    `json:"addr"`
	Since time.Time `json:"since"`
	AgeMS int64     `json:"age_ms"`
}

// Link is a connected peer, seen by who waits for it.
type Link struct {
	Addr    string     `json:"addr"`
	Client  string     `json:"client,omitempty"`
	Origin  bool       `json:"origin"`
	Holds   int        `json:"holds"` // pieces of this file that are missing here
	Choking bool       `json:"choking"`
	Asked   int        `json:"asked"`                 // blocks that it owes, of any file
	Since   *time.Time `json:"asked_since,omitempty"` // since when the first is waited for
	Sent    *time.Time `json:"sent,omitempty"`        // when its last block came
}

// Explainer is a Source that can say what holds a file up. Why must not block
// on the network, a disk or the mount. Its error wraps ErrNoFile or ErrTooEarly.
type Explainer interface {
	Why(path string) (Why, error)
}

// AskWhy asks the process behind one socket about a file of its release.
func AskWhy(ctx context.Context, sock, file string, timeout time.Duration) (Why, error) {
	var w Why
	if err := askAt(ctx, sock, whyPath+"?path="+url.QueryEscape(file), timeout, &w); err != nil {
		return Why{}, err
	}
	if w.Schema != Schema {
		return Why{}, fmt.Errorf("answers in schema %d, this dcfs reads %d", w.Schema, Schema)
	}
	return w, nil
}

// whyHandler answers for e.
func whyHandler(e Explainer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer, err := e.Why(r.URL.Query().Get("path"))
		switch {
		case errors.Is(err, ErrNoFile):
			http.Error(w, err.Error(), http.StatusNotFound)
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			reply(w, answer.normal())
		}
	}
}

// normal is the answer as it goes out: schema set, lists never null.
func (w Why) normal() Why {
	w.Schema = Schema
	if w.Pieces == nil {
		w.Pieces = []Piece{}
	}
	if w.Links == nil {
		w.Links = []Link{}
	}
	return w
}
