package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"dcfs/swarm/metainfo"
)

const (
	// maxStatement bounds an encoded statement in bytes.
	maxStatement = 4 << 10

	statementSchema = 1

	// timeLayout is RFC 3339 in UTC to the second: one spelling per instant.
	timeLayout = "2006-01-02T15:04:05Z"
)

// statement is what the publisher signs. Its encoding is canonical: one
// statement has exactly one spelling.
type statement struct {
	Name       string
	InfoHash   [20]byte
	InfoSHA256 [sha256.Size]byte
	Created    time.Time // UTC, whole seconds
	Expires    time.Time // zero: never
}

// wireStatement is the statement as JSON, fields in their canonical order.
type wireStatement struct {
	Schema     int    `json:"schema"`
	Name       string `json:"name"`
	InfoHash   string `json:"infohash"`
	InfoSHA256 string `json:"info_sha256"`
	Created    string `json:"created"`
	Expires    string `json:"expires,omitempty"`
}

// encode returns the canonical JSON. The statement must be valid.
func (s statement) encode() ([]byte, error) {
	w := wireStatement{
		Schema: statementSchema, Name: s.Name,
		InfoHash: hex.EncodeToString(s.InfoHash[:]), InfoSHA256: hex.EncodeToString(s.InfoSHA256[:]),
		Created: s.Created.UTC().Format(timeLayout),
	}
	if !s.Expires.IsZero() {
		w.Expires = s.Expires.UTC().Format(timeLayout)
	}
	return json.Marshal(w)
}

// decodeStatement reads a statement and refuses every spelling but the
// canonical one: unknown, missing, twice-given or differently cased fields,
// blanks, other forms of a time, upper-case digits.
func decodeStatement(raw []byte) (statement, error) {
	if len(raw) > maxStatement {
		return statement{}, fmt.Errorf("the statement has %d bytes; %d are the limit", len(raw), maxStatement)
	}
	var w wireStatement
	if err := json.Unmarshal(raw, &w); err != nil {
		return statement{}, fmt.Errorf("the statement is no JSON of the right form: %w", err)
	}
	if w.Schema != statementSchema {
		return statement{}, fmt.Errorf("the statement has schema %d, and this dcfs knows %d: it may be too old", w.Schema, statementSchema)
	}
	s, err := w.parse()
	if err != nil {
		return statement{}, fmt.Errorf("the statement is not valid: %w", err)
	}
	again, err := s.encode()
	if err != nil || !bytes.Equal(again, raw) {
		return statement{}, fmt.Errorf("the statement is not in canonical form")
	}
	return s, nil
}

func (w wireStatement) parse() (s statement, err error) {
	if err := metainfo.ValidName(w.Name); err != nil {
		return s, err
	}
	s.Name = w.Name
	if err := unhex(s.InfoHash[:], w.InfoHash); err != nil {
		return s, fmt.Errorf("infohash: %w", err)
	}
	if err := unhex(s.InfoSHA256[:], w.InfoSHA256); err != nil {
		return s, fmt.Errorf("info_sha256: %w", err)
	}
	if s.Created, err = time.Parse(timeLayout, w.Created); err != nil {
		return s, fmt.Errorf("created: %w", err)
	}
	if w.Expires == "" {
		return s, nil
	}
	if s.Expires, err = time.Parse(timeLayout, w.Expires); err != nil {
		return s, fmt.Errorf("expires: %w", err)
	}
	if !s.Expires.After(s.Created) {
		return s, fmt.Errorf("it expires at %s, not after it was created at %s", w.Expires, w.Created)
	}
	return s, nil
}

func unhex(dst []byte, s string) error {
	if hex.DecodedLen(len(s)) != len(dst) || len(s)%2 != 0 {
		return fmt.Errorf("want %d hexadecimal digits", 2*len(dst))
	}
	_, err := hex.Decode(dst, []byte(s))
	return err
}
