package prefetch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	schema = 1

	// maxLine bounds a line in bytes: a path of PATH_MAX bytes, each escaped
	// to six, and the numbers.
	maxLine = 32 << 10

	maxPath    = 4095
	maxRelease = 512
)

// header is a trace file's first line.
type header struct {
	Schema  int    `json:"schema"`
	Release string `json:"release"`
}

// line is one entry. JSON strings hold Unicode only, so a path that is not
// UTF-8 goes as base64 in a field of its own.
type line struct {
	Path    string `json:"path,omitempty"`
	RawPath []byte `json:"path_base64,omitempty"`
	Off     int64  `json:"off"`
	Len     int64  `json:"len"`
	AtMS    int64  `json:"at_ms"`
}

// Write writes the trace as JSON lines: a header, then one line per entry.
func (t *Trace) Write(w io.Writer) error {
	if _, err := w.Write(t.Encode(math.MaxInt)); err != nil {
		return fmt.Errorf("writing the trace: %w", err)
	}
	return nil
}

// Encode returns what Write writes, without the last entries when it would
// have more than limit bytes.
func (t *Trace) Encode(limit int) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	add := func(v any) (fits bool) {
		before := buf.Len()
		if err := enc.Encode(v); err != nil {
			panic(err) // of strings and numbers
		}
		if fits = buf.Len() <= limit; !fits {
			buf.Truncate(before)
		}
		return fits
	}
	if !add(header{schema, t.Release}) {
		return nil
	}
	for _, e := range t.Entries {
		l := line{Off: e.Off, Len: e.Len, AtMS: e.At.Milliseconds()}
		if utf8.ValidString(e.Path) {
			l.Path = e.Path
		} else {
			l.RawPath = []byte(e.Path)
		}
		if !add(l) {
			break
		}
	}
	return buf.Bytes()
}

// Read reads a trace. The input may be hostile: at most MaxEntries entries are
// taken, and every path and number is checked. Errors wrap ErrTrace and name
// the line.
func Read(r io.Reader) (*Trace, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), maxLine)
	t := &Trace{}
	n := 0
	for lines.Scan() {
		n++
		if err := t.take(n, lines.Bytes()); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrTrace, n, err)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("%w: line %d has more than %d bytes", ErrTrace, n+1, maxLine)
	} else if err != nil {
		return nil, fmt.Errorf("reading the trace: %w", err)
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: it is empty: record one with `dcfs mount --trace-out FILE`", ErrTrace)
	}
	return t, nil
}

// Parse is Read of what is in memory.
func Parse(raw []byte) (*Trace, error) { return Read(bytes.NewReader(raw)) }

// take reads line n, counted from 1.
func (t *Trace) take(n int, raw []byte) error {
	if n == 1 {
		return t.takeHeader(raw)
	}
	if len(t.Entries) == MaxEntries {
		return fmt.Errorf("a trace has at most %d entries", MaxEntries)
	}
	var l line
	if err := strict(raw, &l); err != nil {
		return err
	}
	e, err := l.entry()
	if err != nil {
		return err
	}
	t.Entries = append(t.Entries, e)
	return nil
}

func (t *Trace) takeHeader(raw []byte) error {
	var h header
	if err := strict(raw, &h); err != nil {
		return fmt.Errorf("no header: %w", err)
	}
	if h.Schema != schema {
		return fmt.Errorf("the trace has schema %d, and this dcfs knows %d", h.Schema, schema)
	}
	if len(h.Release) > maxRelease {
		return fmt.Errorf("the release's name has %d bytes; %d are the limit", len(h.Release), maxRelease)
	}
	t.Release = h.Release
	return nil
}

func strict(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("something follows the JSON object")
	}
	return nil
}

func (l line) entry() (Entry, error) {
	p := l.Path
	if len(l.RawPath) > 0 {
		if p != "" {
			return Entry{}, fmt.Errorf("both path and path_base64 are given")
		}
		p = string(l.RawPath)
	}
	if err := checkPath(p); err != nil {
		return Entry{}, err
	}
	if l.Off < 0 || l.Len <= 0 || l.Len > math.MaxInt64-l.Off {
		return Entry{}, fmt.Errorf("off %d and len %d are no run of a file", l.Off, l.Len)
	}
	if l.AtMS < 0 || l.AtMS > math.MaxInt64/int64(time.Millisecond) {
		return Entry{}, fmt.Errorf("at_ms %d is out of bounds", l.AtMS)
	}
	return Entry{Path: p, Off: l.Off, Len: l.Len, At: time.Duration(l.AtMS) * time.Millisecond}, nil
}

func checkPath(p string) error {
	switch {
	case p == "" || p == "." || len(p) > maxPath || strings.Contains(p, "\x00"):
		return fmt.Errorf("the path %.80q is no path of a file", p)
	case path.IsAbs(p) || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../"):
		return fmt.Errorf("the path %.80q is not clean and relative", p)
	}
	return nil
}
