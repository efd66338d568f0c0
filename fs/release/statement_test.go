package release

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

const (
	hash40    = "00112233445566778899aabbccddeeff00112233"
	hash64    = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	canonical = `{"schema":1,"name":"app/web-1","infohash":"` + hash40 + `","info_sha256":"` + hash64 +
		`","created":"2026-05-04T03:02:01Z","expires":"2027-05-04T03:02:01Z"}`
)

func TestStatement(t *testing.T) {
	s, err := decodeStatement([]byte(canonical))
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "app/web-1" || s.InfoHash[1] != 0x11 || s.InfoSHA256[31] != 0xff ||
		!s.Created.Equal(time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)) || s.Expires.Year() != 2027 {
		t.Errorf("got %+v", s)
	}
	never := strings.Replace(canonical, `,"expires":"2027-05-04T03:02:01Z"`, "", 1)
	if s, err := decodeStatement([]byte(never)); err != nil || !s.Expires.IsZero() {
		t.Errorf("without expiry: %+v, %v", s, err)
	}
	// Other zones and fractions of a second have the same spelling.
	s.Created = s.Created.Add(time.Millisecond).In(time.FixedZone("x", 3600))
	if out, err := s.encode(); err != nil || string(out) != canonical {
		t.Errorf("%s, %v", out, err)
	}
}

func TestDecodeStatementRefuses(t *testing.T) {
	with := func(old, new string) string {
		out := strings.Replace(canonical, old, new, 1)
		if out == canonical {
			t.Fatalf("%q is not in the statement", old)
		}
		return out
	}
	for name, in := range map[string]string{
		"empty":               "",
		"null":                "null",
		"list":                "[]",
		"not JSON":            canonical[1:],
		"blank in front":      " " + canonical,
		"newline behind":      canonical + "\n",
		"twice":               canonical + canonical,
		"blank within":        with(`:1,`, `: 1,`),
		"unknown field":       with(`{`, `{"x":1,`),
		"field twice":         with(`"schema":1,`, `"schema":1,"name":"other",`),
		"other order":         with(`"schema":1,"name":"app/web-1"`, `"name":"app/web-1","schema":1`),
		"key in capitals":     with(`"name"`, `"Name"`),
		"escaped":             with(`app/web-1`, `\u0061pp/web-1`),
		"schema":              with(`:1,`, `:2,`),
		"schema as a float":   with(`:1,`, `:1.0,`),
		"no name":             with(`app/web-1`, ``),
		"name with dots":      with(`app/web-1`, `app/../web-1`),
		"absolute name":       with(`app/web-1`, `/web-1`),
		"infohash missing":    with(`"infohash":"`+hash40+`",`, ``),
		"infohash short":      with(`"`+hash40, `"`+hash40[2:]),
		"infohash odd":        with(`"`+hash40, `"`+hash40[1:]),
		"infohash long":       with(`"`+hash40, `"00`+hash40),
		"hash in capitals":    with(`aabb`, `AABB`),
		"hash is no hex":      with(`aabb`, `gggg`),
		"no created":          with(`"created":"2026-05-04T03:02:01Z",`, ``),
		"other zone":          with(`03:02:01Z`, `03:02:01+00:00`),
		"fraction":            with(`03:02:01Z`, `03:02:01.5Z`),
		"no such day":         with(`2026-05-04`, `2026-02-30`),
		"expiry before start": with(`2027-05-04T03:02:01Z`, `2026-05-04T03:02:01Z`),
		"expiry empty":        with(`2027-05-04T03:02:01Z`, ``),
		"expiry null":         with(`"2027-05-04T03:02:01Z"`, `null`),
		"too large":           with(`{`, `{`+strings.Repeat(" ", maxStatement)),
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := decodeStatement([]byte(in)); err == nil {
				t.Errorf("%s was taken as %+v", in, s)
			}
		})
	}
}

// Whatever is taken has exactly one spelling.
func FuzzStatement(f *testing.F) {
	f.Add([]byte(canonical))
	f.Add([]byte(strings.Replace(canonical, `,"expires":"2027-05-04T03:02:01Z"`, "", 1)))
	f.Add([]byte(`{"schema":1,"name":"a","infohash":"","info_sha256":"","created":"0000-01-01T00:00:00Z","expires":"0001-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := decodeStatement(in)
		if err != nil {
			return
		}
		out, err := s.encode()
		if err != nil || !bytes.Equal(in, out) {
			t.Fatalf("%s comes back as %s: %v", in, out, err)
		}
	})
}
