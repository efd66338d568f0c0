package catalog

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Schema is the version of the JSON below, in every answer as "schema".
const Schema = 1

// Release describes a published release.
type Release struct {
	Version     Version   `json:"version"`
	Infohash    string    `json:"infohash"`     // 40 lower-case hex digits
	Bytes       int64     `json:"bytes"`        // of all regular files, without padding
	Files       int       `json:"files"`        // regular files
	Pieces      int       `json:"pieces"`       // in the payload stream
	PieceLength int64     `json:"piece_length"` // bytes
	Created     time.Time `json:"created,omitzero"`
	Expires     time.Time `json:"expires,omitzero"` // zero means never
	Signed      bool      `json:"signed"`
	KeyID       string    `json:"key_id,omitempty"` // of the minisign key, as minisign prints it
}

// Validate says what about r no origin could have meant.
func (r Release) Validate() error {
	if _, err := ParseVersion(string(r.Version)); err != nil {
		return err
	}
	if raw, err := hex.DecodeString(r.Infohash); err != nil || len(raw) != 20 || r.Infohash != strings.ToLower(r.Infohash) {
		return fmt.Errorf("release %s: infohash is not 40 lower-case hex digits", r.Version)
	}
	if r.Bytes < 0 || r.Files < 0 || r.Pieces < 0 || r.PieceLength < 0 {
		return fmt.Errorf("release %s: a negative size", r.Version)
	}
	return nil
}

// ReleaseResponse answers GET /v1/releases/VERSION.
type ReleaseResponse struct {
	Schema int `json:"schema"`
	Release
	Sent int64 `json:"sent"` // bytes that the origin has sent of it to peers since it started
}

// ListResponse answers GET /v1/releases.
type ListResponse struct {
	Schema   int       `json:"schema"`
	Releases []Release `json:"releases"`
}

// ErrorResponse is the body of every answer with a status of 400 or more.
type ErrorResponse struct {
	Schema int    `json:"schema"`
	Error  string `json:"error"`          // what failed and why
	Hint   string `json:"hint,omitempty"` // what to try next
}

var errSchema = errors.New(`its JSON does not have "schema": 1; one of the two dcfs is of another time`)

func (r *ReleaseResponse) check() error {
	if r.Schema != Schema {
		return errSchema
	}
	return r.Validate()
}

func (l *ListResponse) check() error {
	if l.Schema != Schema {
		return errSchema
	}
	for _, r := range l.Releases {
		if err := r.Validate(); err != nil {
			return err
		}
	}
	return nil
}
