package catalog

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// untouched is a payload that must not be read.
func untouched(t *testing.T) io.Reader {
	return readerFunc(func([]byte) (int, error) {
		t.Error("the payload was read")
		return 0, io.EOF
	})
}

func TestPublish(t *testing.T) {
	o, url := newOrigin(t, nil)
	_, empty := newOrigin(t, nil)
	payload := strings.Repeat("0123456789", 100_000)
	c := clientFor(t, downURL(), url, empty)
	res, err := c.Publish(t.Context(), "app/web-1", []byte(torrentA), strings.NewReader(payload+"too much"), int64(len(payload)))
	if err != nil || !res.Changed || res.Origin != url || len(res.Infohash) != 40 {
		t.Fatalf("%+v, %v", res, err)
	}
	if o.torrents["app/web-1"] != torrentA || o.payloads["app/web-1"] != payload {
		t.Error("the origin did not get what was sent")
	}
	res, err = c.Publish(t.Context(), "app/web-1", []byte(torrentA), untouched(t), 5)
	if err != nil || res.Changed || o.puts != 1 {
		t.Errorf("again: %+v, %v, %d PUTs", res, err, o.puts)
	}
	_, err = c.Publish(t.Context(), "app/web-1", []byte(torrentB), untouched(t), 5)
	if !errors.Is(err, ErrConflict) || o.puts != 1 || !strings.Contains(err.Error(), "another VERSION") {
		t.Errorf("other content: %v, %d PUTs", err, o.puts)
	}
	if res, err = c.Publish(t.Context(), "empty", []byte(torrentB), strings.NewReader(""), 0); err != nil || !res.Changed {
		t.Errorf("no payload: %+v, %v", res, err)
	}
}

func TestPublishRefusals(t *testing.T) {
	status := func(n int) string {
		return serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				n := http.StatusNotFound
				w.WriteHeader(n)
				return
			}
			w.WriteHeader(n)
		})
	}
	o, next := newOrigin(t, nil)
	for n, want := range map[int]error{
		401: ErrUnauthorized, 403: ErrUnauthorized, 409: ErrConflict, 404: ErrBadAnswer, 405: ErrBadAnswer, 302: ErrBadAnswer, 507: ErrUnreachable,
	} {
		if n == 507 {
			next = downURL() // the only one after which another origin may be tried
		}
		_, err := clientFor(t, status(n), next).Publish(t.Context(), "web", []byte(torrentA), untouched(t), 5)
		if !errors.Is(err, want) || o.puts != 0 {
			t.Errorf("%d: %v, want %v; %d PUTs at the next origin", n, err, want, o.puts)
		}
		_, next = newOrigin(t, nil)
	}
}

// An origin that cannot say what it has gets no upload.
func TestPublishAsksFirst(t *testing.T) {
	puts := 0
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			puts++
		}
		w.WriteHeader(http.StatusInternalServerError)
	})
	_, err := clientFor(t, url).Publish(t.Context(), "web", []byte(torrentA), untouched(t), 5)
	if !errors.Is(err, ErrUnreachable) || puts != 0 {
		t.Errorf("%v, %d PUTs", err, puts)
	}
}

// Somebody else published between our question and our upload.
func TestPublishRace(t *testing.T) {
	o, url := newOrigin(t, map[string]string{"web": torrentA})
	o.blind = true
	c := clientFor(t, url)
	res, err := c.Publish(t.Context(), "web", []byte(torrentA), strings.NewReader("12345"), 5)
	if err != nil || res.Changed {
		t.Errorf("the same: %+v, %v", res, err)
	}
	if _, err = c.Publish(t.Context(), "web", []byte(torrentB), strings.NewReader("12345"), 5); !errors.Is(err, ErrConflict) {
		t.Errorf("another: %v", err)
	}
}

func TestPublishWrongTokenSendsNoPayload(t *testing.T) {
	o, url := newOrigin(t, nil)
	c := clientFor(t, url)
	c.Token = "guess"
	_, err := c.Publish(t.Context(), "web", []byte(torrentA), untouched(t), 5)
	if !errors.Is(err, ErrUnauthorized) || o.puts != 1 || !strings.Contains(err.Error(), "--publish-token-file") {
		t.Errorf("%v, %d PUTs", err, o.puts)
	}
}

func TestPublishBadInput(t *testing.T) {
	o, url := newOrigin(t, nil)
	c := clientFor(t, url)
	disk := errors.New("disk on fire")
	for name, p := range map[string]struct {
		version Version
		meta    string
		payload io.Reader
		size    int64
		want    error
	}{
		"bad version":    {"../x", torrentA, untouched(t), 5, ErrUsage},
		"no torrent":     {"web", "hello", untouched(t), 5, ErrUsage},
		"no info":        {"web", "d1:ai1ee", untouched(t), 5, ErrUsage},
		"negative size":  {"web", torrentA, untouched(t), -1, ErrUsage},
		"short payload":  {"web", torrentA, strings.NewReader("1234"), 5, io.ErrUnexpectedEOF},
		"broken payload": {"web", torrentA, io.MultiReader(strings.NewReader("1"), readerFunc(func([]byte) (int, error) { return 0, disk })), 5, disk},
	} {
		_, err := c.Publish(t.Context(), p.version, []byte(p.meta), p.payload, p.size)
		if !errors.Is(err, p.want) {
			t.Errorf("%s: %v, want %v", name, err, p.want)
		}
		if p.want != ErrUsage && (errors.Is(err, ErrUsage) || errors.Is(err, ErrUnreachable)) {
			t.Errorf("%s: %v blames somebody", name, err)
		}
	}
	if len(o.torrents) != 0 {
		t.Errorf("the origin published %v", o.torrents)
	}
}

// Once a byte of payload is gone no other origin can get the whole.
func TestPublishBrokenMidway(t *testing.T) {
	breaks := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = ReadUpload(r.Body)
		_, _ = r.Body.Read(make([]byte, 1))
		panic(http.ErrAbortHandler)
	})
	o, next := newOrigin(t, nil)
	endlessly := readerFunc(func(p []byte) (int, error) { return len(p), nil })
	_, err := clientFor(t, breaks, next).Publish(t.Context(), "web", []byte(torrentA), endlessly, 1<<40)
	if !errors.Is(err, ErrUnreachable) || o.puts != 0 {
		t.Errorf("%v, %d PUTs at the next origin", err, o.puts)
	}
}

func TestUploadToASilentOrigin(t *testing.T) {
	for name, c := range map[string]struct {
		take int64 // bytes of the body that it takes
		took time.Duration
	}{
		"takes nothing":    {0, stallTimeout},
		"takes some":       {10, stallTimeout},
		"takes everything": {8 + int64(len(torrentA)) + 5, commitTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := transport(func(r *http.Request) (*http.Response, error) {
					if r.Method == http.MethodGet {
						return respond(404, strings.NewReader("")), nil
					}
					_, _ = io.CopyN(io.Discard, r.Body, c.take)
					<-r.Context().Done()
					return nil, r.Context().Err()
				})
				// A slow disk here is not a slow origin.
				slow := readerFunc(func(p []byte) (int, error) {
					time.Sleep(time.Hour)
					return len(p), nil
				})
				start := time.Now()
				cl := &Client{Origins: []string{"http://x"}, HTTP: &http.Client{Transport: rt}}
				_, err := cl.Publish(t.Context(), "web", []byte(torrentA), slow, 5)
				took := time.Since(start) % time.Hour
				if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "silent") || took != c.took {
					t.Errorf("%v after %v, want %v", err, took, c.took)
				}
			})
		})
	}
}

func TestReadUpload(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		meta := rapid.SliceOfN(rapid.Byte(), 1, 2000).Draw(t, "metainfo")
		payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		up := &upload{metainfo: meta, payload: bytes.NewReader(payload), size: int64(len(payload))}
		w := &watch{timer: time.NewTimer(time.Hour), limit: time.Hour}
		defer w.timer.Stop()
		body, err := io.ReadAll(up.body(w))
		if err != nil || int64(len(body)) != up.length() {
			t.Fatalf("%d bytes, %v", len(body), err)
		}
		r := bytes.NewReader(body)
		got, err := ReadUpload(r)
		rest, _ := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, meta) || !bytes.Equal(rest, payload) {
			t.Fatalf("%q %q %v", got, rest, err)
		}
		if cut := rapid.IntRange(0, 7+len(meta)).Draw(t, "cut"); true {
			if _, err := ReadUpload(bytes.NewReader(body[:cut])); err == nil {
				t.Fatalf("accepted the first %d bytes", cut)
			}
		}
	})
	for _, head := range []string{"\x00\x00\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x04\x00\x00\x01", "\xff\xff\xff\xff\xff\xff\xff\xff"} {
		if _, err := ReadUpload(strings.NewReader(head + "x")); !errors.Is(err, ErrUsage) {
			t.Errorf("length %x: %v", head, err)
		}
	}
}

func TestInfohash(t *testing.T) {
	sum := sha1.Sum([]byte("d4:name1:ae"))
	for meta, want := range map[string]string{
		torrentA:                             hex.EncodeToString(sum[:]),
		"d4:infod4:name1:aee":                hex.EncodeToString(sum[:]),
		"d1:ald4:infodeee4:infod4:name1:aee": hex.EncodeToString(sum[:]),
		"":                                   "", "d": "", "de": "", "le": "", "d4:info1:xe": "", "d4:infod": "", "d4:infodi1": "",
		"d4:info": "", "d99:x": "", "d99999999999:x": "", "d-1:x": "", "d:x": "", "d1:xe4:infode": "",
	} {
		got, err := infohash([]byte(meta))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", meta, got, err)
		}
	}
}

func FuzzInfohash(f *testing.F) {
	for _, s := range []string{torrentA, torrentB, "d4:info", "d1:ai1e4:infoli1eee", strings.Repeat("l", 1000), "d0:0:4:infodee"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := infohash(b)
		if err != nil {
			return
		}
		// It must be the hash of a dictionary that stands behind the key.
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], []byte("4:infod"))
			if i < 0 {
				t.Fatalf("%q has infohash %s", b, got)
			}
			at += i
			dict := b[at+len("4:info"):]
			sum := sha1.Sum(dict[:valueLen(dict)])
			if hex.EncodeToString(sum[:]) == got {
				return
			}
		}
	})
}
