package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dcfs/cache/piece"
	"dcfs/cmd/internal/board"
	"dcfs/cmd/internal/control"
)

const (
	maxReported   = 4               // origins that are told
	reportTimeout = 3 * time.Second // for one report
	farewell      = time.Second     // for the last
	reportGap     = time.Second     // at least, between two
	refusedPause  = 5 * time.Minute // who knows neither reports nor the release is asked again
	failedPause   = 10 * time.Second
	maxPause      = 2 * time.Minute
	maxReportSaid = 4 << 10 // bytes of an answer
)

// startReports tells the origins from now on how this host is. They are those
// whose trackers know the release.
func (l *life) startReports(ctx context.Context, group *errgroup.Group) {
	if l.cfg.NoReports {
		return
	}
	told := 0
	for _, t := range l.trackers {
		scheme := "http"
		if l.cfg.Gate.Identity != nil {
			scheme = "https" // who proves itself, and no other, hears of this host
		}
		if base, ok := strings.CutSuffix(t, "/announce"); ok && strings.HasPrefix(base, scheme) && told < maxReported {
			told++
			r := &reporter{life: l, url: base + control.ReportPath, client: &http.Client{
				// A connection of each host, kept open, would cost an origin of many more
				// than the few handshakes.
				Transport:     l.cfg.Gate.Identity.Secure(&http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}),
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			}}
			group.Go(func() error { r.run(ctx); return nil })
		}
	}
}

// reporter tells one origin.
type reporter struct {
	life   *life
	url    string
	client *http.Client
	heard  bool // the origin took the last report
	deaf   bool // it answered that it wants none
}

// run reports when the origin wants it and when the state changes, until ctx
// ends; and then once more, unless the origin does not care.
func (r *reporter) run(ctx context.Context) {
	for {
		turned := r.life.turned()
		pause := r.report(ctx, reportTimeout)
		if !sleepUnless(ctx, reportGap, nil) {
			break
		}
		// A fleet that was started at once must not report at once.
		pause += rand.N(pause/4+1) - pause/8 - reportGap
		if r.heard && !sleepUnless(ctx, pause, turned) || !r.heard && !sleepUnless(ctx, pause, nil) {
			break
		}
	}
	if !r.deaf {
		r.report(context.WithoutCancel(ctx), farewell)
	}
}

// sleepUnless sleeps until d is over or turned is closed, and reports false when
// ctx has ended.
func sleepUnless(ctx context.Context, d time.Duration, turned <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-turned:
	case <-t.C:
	}
	return true
}

// report reports and returns how long to wait.
func (r *reporter) report(ctx context.Context, most time.Duration) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	next, err := r.post(ctx)
	r.heard = err == nil
	if err != nil {
		r.life.log.Debug("the origin was not told how this host is", "origin", r.url, "cause", err)
	}
	return next
}

func (r *reporter) post(ctx context.Context) (time.Duration, error) {
	body, err := json.Marshal(r.life.report())
	if err != nil {
		return maxPause, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		return maxPause, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		return failedPause, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxReportSaid))
	switch {
	case err != nil:
		return failedPause, err
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		secs, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return min(max(failedPause, time.Duration(secs)*time.Second), maxPause), fmt.Errorf("%s: %s", resp.Status, said)
	case resp.StatusCode != http.StatusOK:
		r.deaf = true
		return refusedPause, fmt.Errorf("%s: %s", resp.Status, said)
	}
	r.deaf = false
	var a control.ReportAnswer
	if err := json.Unmarshal(said, &a); err != nil {
		return refusedPause, err
	}
	return min(max(time.Duration(a.NextMS)*time.Millisecond, reportGap), maxPause), nil
}

// report is what the origins and this host's own page are told.
func (l *life) report() control.Report {
	r := control.Report{Status: l.Status(), Rack: l.cfg.Rack}
	r.Host, _ = os.Hostname()
	r.PeerAddrs, r.Held = nil, nil
	slices.SortFunc(r.Waiting, func(a, b control.Wait) int { return int(b.AgeMS - a.AgeMS) })
	r.Waiting = r.Waiting[:min(len(r.Waiting), control.MaxReportWaits)]
	l.mu.Lock()
	ready := l.ready
	if l.node != nil {
		r.PeerListen = l.node.Addr()
	}
	l.mu.Unlock()
	if ready {
		here := l.here()
		r.PiecesHave, r.BytesHave = here.Len(), r.BytesHave+r.BytesClaimed
		r.Cells = board.Cells(here)
	}
	return r
}

// here are the pieces that this host gives to peers: verified, or claimed.
func (l *life) here() *piece.Set {
	set := l.store.Verified()
	if l.store.Stats().Claimed > 0 {
		for i := range piece.Index(set.Cap()) {
			if !set.Has(i) && l.store.Have(i) {
				set.Add(i)
			}
		}
	}
	return set
}

// turned returns a channel that is closed when the state changes.
func (l *life) turned() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.turn == nil {
		l.turn = make(chan struct{})
	}
	return l.turn
}
