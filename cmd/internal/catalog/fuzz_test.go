package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"
)

// said is an origin that answers every question with one body.
type said struct {
	status int
	body   []byte
}

func (s said) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: s.status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(s.body)),
		ContentLength: -1, Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}, nil
}

// FuzzAnswer: whatever an origin says, an answer that is believed is valid,
// and another one is one of our errors.
func FuzzAnswer(f *testing.F) {
	release := `{"schema":1,"version":"v/1","infohash":"0123456789abcdef0123456789abcdef01234567","bytes":1,"files":1,"pieces":1,"piece_length":16384}`
	for _, s := range []string{
		release, `{"schema":1,"releases":[` + release + `]}`, `{"schema":1,"releases":null}`, `{"schema":2}`, `[]`, ``, `{`, "d4:infodee",
		`{"schema":1,"version":"../x","infohash":""}`, `{"schema":1,"error":"\u0000","hint":"\u001b[2J"}`,
		`{"schema":1,"releases":[{"version":"a","bytes":-1}]}`, `{"schema":1,"releases":[[[[[[]]]]]]}`,
	} {
		f.Add(uint16(200), []byte(s))
		f.Add(uint16(404), []byte(s))
		f.Add(uint16(503), []byte(s))
	}
	known := []error{ErrUsage, ErrBadAnswer, ErrUnknownRelease, ErrUnauthorized, ErrConflict, ErrUnreachable}
	f.Fuzz(func(t *testing.T, status uint16, body []byte) {
		if status < 100 || status > 999 || status/100 == 3 { // no status, or a redirect to nowhere
			return
		}
		c := &Client{Origins: []string{"http://origin:7070"}, HTTP: &http.Client{Transport: said{int(status), body}}}
		check := func(err error) bool {
			for _, k := range known {
				if errors.Is(err, k) {
					return false
				}
			}
			if err != nil {
				t.Fatalf("an error of no kind: %v", err)
			}
			return true
		}
		if r, err := c.Get(context.Background(), "v/1"); check(err) && (r.Validate() != nil || r.Version != "v/1") {
			t.Fatalf("%+v", r)
		}
		if list, err := c.List(context.Background()); check(err) {
			for _, r := range list {
				if err := r.Validate(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if b, err := c.Metainfo(context.Background(), "v/1"); check(err) && !bytes.Equal(b, body) {
			t.Fatalf("%q", b)
		}
	})
}

// FuzzReadUpload: the metainfo is what the head announces, and the rest is left.
func FuzzReadUpload(f *testing.F) {
	for _, s := range []string{
		"\x00\x00\x00\x00\x00\x00\x00\x02deREST", "\x00\x00\x00\x00\x00\x00\x00\x00", "\xff\xff\xff\xff\xff\xff\xff\xff",
		"\x00\x00\x00\x00\x04\x00\x00\x00short", "\x00\x00", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		got, err := ReadUpload(r)
		if err != nil {
			if !errors.Is(err, ErrUsage) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatal(err)
			}
			return
		}
		rest, _ := io.ReadAll(r)
		if len(got) == 0 || !bytes.Equal(append(append(b[:8:8], got...), rest...), b) {
			t.Fatalf("%q and %q of %q", got, rest, b)
		}
	})
}

// FuzzRelease: what is valid survives its own JSON.
func FuzzRelease(f *testing.F) {
	f.Add([]byte(`{"version":"v","infohash":"0123456789abcdef0123456789abcdef01234567","created":"2026-05-04T03:02:01Z"}`))
	f.Add([]byte(`{"created":"9999-99-99T99:99:99Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, back Release
		if json.Unmarshal(b, &r) != nil || r.Validate() != nil {
			return
		}
		text, err := json.Marshal(r)
		if err == nil {
			err = json.Unmarshal(text, &back)
		}
		if err != nil || back.Validate() != nil || back.Version != r.Version || !back.Created.Equal(r.Created) {
			t.Fatalf("%s: %+v, %v", text, back, err)
		}
	})
}
