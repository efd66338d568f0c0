package catalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"
	"time"
)

// UploadType is the Content-Type of PUT /v1/releases/VERSION. The body is the
// length of the metainfo as 8 bytes, big-endian; the metainfo; and the payload
// stream with its padding, to the end of the body.
//
// The origin answers 201 when the release is published and durable, 200 when
// it held the same release already, 409 when it holds another one under that
// VERSION, 401 or 403 when the token is missing or wrong.
const UploadType = "application/x-dcfs-release"

const (
	stallTimeout  = 60 * time.Second // an origin that takes no byte of the body for so long
	commitTimeout = 10 * time.Minute // from the last byte to the answer: it hashes and syncs
)

// PublishResult says what became of a Publish.
type PublishResult struct {
	Origin   string // which origin has the release
	Infohash string // 40 hex digits
	Changed  bool   // false when it held the same release before
}

// Publish gives a release to the first origin that answers. payload is the
// payload stream, padding included, of exactly size bytes; it is not read when
// the origin holds the same infohash already. When it holds another one under
// version the error wraps ErrConflict. Once a byte of payload has been read no
// other origin is tried, for the stream cannot be read twice. payload is not
// read after Publish has returned. When reading it fails the error wraps that
// of payload, or io.ErrUnexpectedEOF, and none of this package.
func (c *Client) Publish(ctx context.Context, version Version, metainfo []byte, payload io.Reader, size int64) (PublishResult, error) {
	infohash, err := infohash(metainfo)
	if err == nil && (len(metainfo) > MaxMetainfo || size < 0) {
		err = fmt.Errorf("it has %d bytes and the payload %d; up to %d and 0 or more are allowed", len(metainfo), size, MaxMetainfo)
	}
	if err != nil {
		return PublishResult{}, fmt.Errorf("%w: publish %s: bad metainfo: %w", ErrUsage, version, err)
	}
	up := &upload{version: version, metainfo: metainfo, payload: payload, size: size}
	result := PublishResult{Infohash: infohash}
	err = each(c.Origins, "publish "+string(version), func(origin string) (err error) {
		result.Origin = origin
		result.Changed, err = c.publishAt(ctx, origin, infohash, up)
		return err
	})
	if err != nil {
		return PublishResult{}, err
	}
	return result, nil
}

// publishAt asks before it sends: most repeated publishes change nothing.
func (c *Client) publishAt(ctx context.Context, origin, infohash string, up *upload) (changed bool, err error) {
	there, err := c.getAt(ctx, origin, up.version)
	switch {
	case err == nil && there.Infohash == infohash:
		return false, nil
	case err == nil:
		return false, final{fail(ErrConflict, fmt.Errorf("it has infohash %s, this is %s", there.Infohash, infohash))}
	case !errors.Is(err, ErrUnknownRelease):
		return false, err
	}
	changed, err = c.put(ctx, origin, up)
	if err != nil && (up.started || !errors.Is(err, ErrUnreachable)) {
		err = final{err}
	}
	return changed, err
}

func (c *Client) put(ctx context.Context, origin string, up *upload) (changed bool, err error) {
	u, err := releaseURL(origin, up.version)
	if err != nil {
		return false, err
	}
	ctx, w, stop := newWatch(ctx, stallTimeout)
	defer stop()
	body := up.body(w)
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, u, body)
	if err != nil {
		return false, fail(ErrUsage, err)
	}
	req.ContentLength = up.length()
	req.Header.Set("Content-Type", UploadType)
	req.Header.Set("Expect", "100-continue") // a refusal comes before the payload goes
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	res, err := c.do(req)
	body.Close() // the transport may go on reading after an early answer
	if err != nil {
		return false, transportFailure(ctx, err)
	}
	defer res.Body.Close()
	return putStatus(res, w)
}

func putStatus(res *http.Response, w *watch) (changed bool, err error) {
	switch res.StatusCode {
	case http.StatusCreated:
		return true, nil
	case http.StatusOK:
		return false, nil
	}
	w.limit = silentTimeout
	f := statusFailure(res, w)
	if f.kind == ErrUnknownRelease { // it does not know how to publish
		f.kind = ErrBadAnswer
	}
	if f.kind == ErrBadAnswer && f.hint == "" {
		f.hint = "the origin refuses what it was sent; its log may say more"
	}
	return false, f
}

// upload is what a PUT sends.
type upload struct {
	version  Version
	metainfo []byte
	payload  io.Reader
	size     int64
	started  bool // payload has been read from; not to be read before sending.Close
}

func (u *upload) length() int64 { return 8 + int64(len(u.metainfo)) + u.size }

func (u *upload) body(w *watch) *sending {
	head := binary.BigEndian.AppendUint64(nil, uint64(len(u.metainfo)))
	payload := &payloadReader{u: u, left: u.size}
	return &sending{
		r: io.MultiReader(bytes.NewReader(head), bytes.NewReader(u.metainfo), payload),
		w: w, left: u.length(),
	}
}

// payloadReader reads exactly the announced size.
type payloadReader struct {
	u    *upload
	left int64
}

func (p *payloadReader) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	p.u.started = true
	n, err := p.u.payload.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	if err == io.EOF && p.left > 0 {
		err = fmt.Errorf("%w: %d bytes are missing", io.ErrUnexpectedEOF, p.left)
	}
	if err != nil && err != io.EOF {
		err = fail(errPayload, err)
	}
	return n, err
}

// sending is the body of a PUT. It measures how long the origin takes, and not
// how long we read: the clock stops while r is read. After the last byte the
// origin has longer.
type sending struct {
	w *watch

	mu     sync.Mutex // held while r is read
	r      io.Reader
	left   int64
	closed bool
}

// Read is called by the transport, from a goroutine of its own.
func (s *sending) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, fs.ErrClosed
	}
	s.w.timer.Stop()
	n, err := s.r.Read(p)
	if s.left -= int64(n); s.left <= 0 || err != nil {
		s.w.limit = commitTimeout
	}
	s.w.next()
	return n, err
}

// Close waits for a Read in progress; no other one reaches the payload, which
// is the caller's again.
func (s *sending) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// ReadUpload reads the head of an upload's body and returns the metainfo; what
// is left in r is the payload stream. Memory grows with what arrives, not with
// what is announced. Errors wrap ErrUsage or are r's own.
func ReadUpload(r io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("length of the metainfo: %w", err)
	}
	n := binary.BigEndian.Uint64(head[:])
	if n == 0 || n > MaxMetainfo {
		return nil, fmt.Errorf("%w: a metainfo of %d bytes; 1 to %d are allowed", ErrUsage, n, MaxMetainfo)
	}
	metainfo, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && uint64(len(metainfo)) < n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("metainfo: %w", err)
	}
	return metainfo, nil
}
