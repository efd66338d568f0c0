package swarm

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"dcfs/cache/piece"
	"dcfs/swarm/gate"
)

const (
	webDial     = 3 * time.Second
	webAnswer   = 10 * time.Second // to the head of an answer
	webStall    = 15 * time.Second // without a byte
	webBlock    = 64 << 10
	webFirstOff = time.Second // that a web seed which failed is left alone
	webMostOff  = time.Minute
	webWrongOff = 10 * time.Minute // after a wrong piece
)

var (
	errWebWrong  = errors.New("it sent a piece whose hash is wrong")
	errWebAnswer = errors.New("it does not answer as a web seed")

	errWebStalled = fmt.Errorf("no byte came for %s", webStall)
)

// webSeed is one of them. web.mu guards it.
type webSeed struct {
	base  string
	rest  time.Time // until when it is left alone
	pause time.Duration
	err   error // of the last attempt
}

// newWebClient follows no redirect: who names a web seed names where the bytes
// are, and nothing else is asked. The gate's certificate and limits hold.
func newWebClient(g *gate.Gate) *http.Client {
	dial := (&net.Dialer{Timeout: webDial}).DialContext
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dial,
		TLSHandshakeTimeout: webDial, ResponseHeaderTimeout: webAnswer, MaxConnsPerHost: webParallel,
		MaxIdleConnsPerHost: webParallel, IdleConnTimeout: webStall, DisableCompression: true,
	}
	if g != nil {
		t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return g.Rates.Pace(c), nil
		}
		t = g.Identity.Secure(t)
	}
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// usable returns the first web seed that is not left alone, nil if all are.
func (w *web) usable(now time.Time) *webSeed {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, seed := range w.seeds {
		if !now.Before(seed.rest) {
			return seed
		}
	}
	return nil
}

// went notes how an attempt went, and says whether that is news.
func (w *web) went(seed *webSeed, err error, now time.Time) (news bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	news = err != nil && seed.err == nil
	seed.err = err
	switch {
	case err == nil:
		seed.pause = 0
	case errors.Is(err, errWebWrong):
		seed.rest, news = now.Add(webWrongOff), true
	case !now.Before(seed.rest): // not for each of those that failed together
		seed.pause = min(max(2*seed.pause, webFirstOff), webMostOff)
		seed.rest = now.Add(seed.pause)
	}
	return news
}

// trouble returns the web seeds whose last attempt failed, and how.
func (w *web) trouble() map[string]error {
	out := make(map[string]error)
	if w == nil {
		return out
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, seed := range w.seeds {
		if seed.err != nil {
			out[seed.base] = seed.err
		}
	}
	return out
}

// fetchWeb fetches the pieces that it is given until there are no more.
func (s *Swarm) fetchWeb(ctx context.Context) {
	for i := range s.web.jobs {
		seed := s.web.usable(time.Now())
		if seed == nil || !s.claimWeb(ctx, i) {
			continue
		}
		err := s.fromWeb(ctx, seed, i)
		s.releaseWeb(i)
		if err != nil && ctx.Err() != nil {
			continue // nobody's fault
		}
		if s.web.went(seed, err, time.Now()) {
			s.log.Warn("a web seed failed; it is left alone for a while", "url", seed.base, "piece", int(i), "cause", err)
		}
	}
}

// fromWeb fetches a piece. Nothing of it is given to the store before its hash
// is known to be right.
func (s *Swarm) fromWeb(ctx context.Context, seed *webSeed, i piece.Index) error {
	data, err := s.web.get(ctx, seed.base, i)
	if err != nil {
		return err
	}
	if sum := sha1.Sum(data); !bytes.Equal(sum[:], s.web.sums[int(i)*sha1.Size:][:sha1.Size]) {
		s.wrongs.Add(1)
		return fmt.Errorf("piece %d: %w: is it the same release there?", i, errWebWrong)
	}
	if s.web.store.Have(i) {
		return nil // a peer was faster
	}
	if err := s.web.store.WriteChunk(i, data, 0); err != nil {
		s.log.Error("the piece store refused a chunk", "cause", err)
		return nil
	}
	if _, err := s.web.store.Verify(i); err != nil {
		s.log.Debug("a piece of a web seed", "piece", int(i), "cause", err) // the disk refuses
		return nil
	}
	s.web.bytes.Add(int64(len(data)))
	s.web.last.Store(time.Now().UnixNano())
	s.node.trail.noteWeb(s.t, i)
	return nil
}

// get returns the bytes of a piece.
func (w *web) get(ctx context.Context, base string, i piece.Index) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(webAnswer+webStall, func() { cancel(errWebStalled) })
	defer stalled.Stop()
	data := make([]byte, 0, w.layout.Size(i))
	for _, p := range w.Parts(w.layout.Offset(i), w.layout.Size(i)) {
		at := int64(len(data))
		if p.N < 0 || p.N > int64(cap(data))-at {
			return nil, fmt.Errorf("%w: a part of %d bytes", errWebAnswer, p.N)
		}
		data = data[:at+p.N]
		if p.Path == "" {
			continue // padding is zeros
		}
		if err := w.part(ctx, base, p, data[at:], stalled); err != nil {
			if errors.Is(context.Cause(ctx), errWebStalled) {
				err = errWebStalled
			}
			return nil, fmt.Errorf("%s: %w", p.Path, err)
		}
	}
	if len(data) != cap(data) {
		return nil, fmt.Errorf("%w: %d bytes of %d", errWebAnswer, len(data), cap(data))
	}
	return data, nil
}

// part reads a run of a file into b. It is cut off when no byte comes for too
// long.
func (w *web) part(ctx context.Context, base string, p Part, b []byte, stalled *time.Timer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fileURL(base, w.Name, p.Path), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", p.Off, p.Off+p.N-1))
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	whole := resp.StatusCode == http.StatusOK && p.Off == 0 // it knows no ranges
	if resp.StatusCode != http.StatusPartialContent && !whole {
		return fmt.Errorf("%w: %s to a range of bytes", errWebAnswer, resp.Status)
	}
	for len(b) > 0 {
		next := b[:min(len(b), webBlock)]
		stalled.Reset(webStall)
		if _, err := io.ReadFull(resp.Body, next); err != nil {
			return fmt.Errorf("%d bytes are missing: %w", len(b), err)
		}
		stalled.Stop()
		b = b[len(next):]
	}
	stalled.Reset(webAnswer + webStall)
	return nil
}

// fileURL appends a file's path to that of a web seed (BEP 19).
func fileURL(base, name, path string) string {
	var b strings.Builder
	b.WriteString(strings.TrimSuffix(base, "/"))
	for part := range strings.SplitSeq(name+"/"+path, "/") {
		b.WriteString("/" + url.PathEscape(part))
	}
	return b.String()
}

// claimWeb has nobody else fetch piece i; it says whether that could be.
func (s *Swarm) claimWeb(ctx context.Context, i piece.Index) bool {
	s.web.mark(i, true)
	if s.exchange == nil {
		s.setPriority(i, piece.None)
		return true
	}
	ev := event{kind: viaWeb, piece: i, good: true, done: make(chan struct{})}
	s.exchange.post(ev)
	select {
	case <-ev.done:
		return true
	case <-ctx.Done():
		s.web.mark(i, false)
		return false
	}
}

// releaseWeb gives piece i back, or tells that it is here.
func (s *Swarm) releaseWeb(i piece.Index) {
	s.web.mark(i, false)
	here := s.web.store.Have(i)
	if s.exchange != nil {
		if here {
			s.exchange.post(event{kind: checked, piece: i, good: true})
		}
		s.exchange.post(event{kind: viaWeb, piece: i})
		return
	}
	if here {
		s.recheck(i)
		s.done(i)
		return
	}
	s.mu.Lock()
	u := s.plan.Urgency(i)
	s.mu.Unlock()
	s.setPriority(i, u)
}
