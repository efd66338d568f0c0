package origin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dcfs/cmd/internal/catalog"
	"dcfs/fs/durable"
	"dcfs/fs/prefetch"
)

// A release's traces lie beside its metainfo: the publisher's, and those of the
// first hosts that hold the trace token, named after their addresses. All that
// a trace can change is the order in which a node fetches; so it is bounded and
// held against the tree, and nothing else.
const (
	traceFile = "trace"
	tracesDir = "traces"
	// maxTraceHosts is from how many hosts traces are taken: the middle of a few
	// is as good as that of many.
	maxTraceHosts = 8
	// traceTime is how long after the first of them others are taken.
	traceTime = 24 * time.Hour
	// traceWait bounds how long one may take to arrive.
	traceWait = 30 * time.Second
	// oldTrace bounds what is read of a trace in the store, in bytes.
	oldTrace = prefetch.MaxBytes
)

// traces are the traces of the releases in a library. It is safe for
// concurrent use; traces are read, merged and taken one at a time, which bounds
// the memory that they take.
type traces struct {
	lib *Library

	mu     sync.Mutex
	merged map[string][]byte // by version, as served; empty for none
}

func newTraces(lib *Library) *traces {
	return &traces{lib: lib, merged: make(map[string][]byte)}
}

// get returns the trace of a release as it is served; empty when there is none.
func (t *traces) get(rel *seeded) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if raw, ok := t.merged[rel.version]; ok {
		return raw, nil
	}
	publisher, err := readTrace(filepath.Join(t.lib.home(rel.version), traceFile))
	if err != nil {
		return nil, err
	}
	names, _, err := t.hosts(rel.version)
	if err != nil {
		return nil, err
	}
	var hosts []*prefetch.Trace
	for _, name := range names {
		h, err := readTrace(filepath.Join(t.lib.home(rel.version), tracesDir, name))
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
	}
	var raw []byte
	if publisher != nil || len(hosts) > 0 {
		m := prefetch.Merge(rel.mi.Tree, publisher, hosts)
		m.Release = rel.version
		raw = m.Encode(prefetch.MaxBytes)
	}
	t.merged[rel.version] = raw
	return raw, nil
}

// readTrace reads a trace from the store; nil when there is none.
func readTrace(path string) (*prefetch.Trace, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return prefetch.Read(io.LimitReader(f, oldTrace))
}

// hosts lists whose traces of a version are here, by name, and since when.
func (t *traces) hosts(version string) (names []string, first time.Time, err error) {
	entries, err := os.ReadDir(filepath.Join(t.lib.home(version), tracesDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, first, nil
	}
	for _, e := range entries {
		if durable.IsTemporary(e.Name()) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, first, err
		}
		if names = append(names, e.Name()); first.IsZero() || info.ModTime().Before(first) {
			first = info.ModTime()
		}
	}
	return names, first, err
}

// wants reports whether a trace of that host is still to be taken.
func (t *traces) wants(version, host string, now time.Time) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open(version, host, now)
}

func (t *traces) open(version, host string, now time.Time) (bool, error) {
	names, first, err := t.hosts(version)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if name == host {
			return false, nil
		}
	}
	return len(names) < maxTraceHosts && (first.IsZero() || now.Sub(first) < traceTime), nil
}

// take keeps what a host recorded. It reports whether it did: another may have
// been faster.
func (t *traces) take(rel *seeded, host string, raw []byte, now time.Time) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	trace, err := prefetch.Parse(raw)
	if err != nil {
		return false, err
	}
	if trace.Release != rel.version {
		return false, fmt.Errorf("%w: it was recorded on release %q, not on %s", prefetch.ErrTrace, trace.Release, rel.version)
	}
	if trace = trace.Within(rel.mi.Tree, prefetch.MaxShared); len(trace.Entries) == 0 {
		return false, fmt.Errorf("%w: it names no file of %s", prefetch.ErrTrace, rel.version)
	}
	if open, err := t.open(rel.version, host, now); err != nil || !open {
		return false, err
	}
	dir := filepath.Join(t.lib.home(rel.version), tracesDir)
	if err := t.lib.disk.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	err = t.lib.disk.WriteFile(filepath.Join(dir, host), trace.Encode(prefetch.MaxSharedBytes), 0o644)
	delete(t.merged, rel.version)
	return err == nil, err
}

// publish keeps the trace that the publisher gave, in place of an earlier one.
// It may be of an older release: what this one does not have is left out.
func (t *traces) publish(rel *seeded, raw []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	trace, err := prefetch.Parse(raw)
	if err != nil {
		return err
	}
	trace = trace.Within(rel.mi.Tree, prefetch.MaxEntries)
	trace.Release = rel.version
	delete(t.merged, rel.version)
	return t.lib.keepTrace(rel.version, trace)
}

// keepTrace writes the publisher's trace of a version.
func (lib *Library) keepTrace(version string, trace *prefetch.Trace) error {
	return lib.disk.WriteFile(filepath.Join(lib.home(version), traceFile), trace.Encode(prefetch.MaxBytes), 0o644)
}

// getTrace answers GET /v1/releases/VERSION.trace.
func (s *service) getTrace(w http.ResponseWriter, r *http.Request, version string) {
	rel, err := s.shelf.find(r.Context(), version)
	if err != nil {
		s.fail(w, err)
		return
	}
	raw, err := s.traces.get(rel)
	if err == nil && len(raw) == 0 {
		err = fmt.Errorf("%w: there is no trace of %s yet", catalog.ErrUnknownRelease, version)
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", catalog.TraceType)
	_, _ = w.Write(raw)
}

// putTrace answers PUT /v1/releases/VERSION.trace: of the publisher, who holds
// the publish token, or of a host, which holds the trace token.
func (s *service) putTrace(w http.ResponseWriter, r *http.Request, version string) {
	taken, err := s.receiveTrace(w, r, version)
	if err != nil {
		s.fail(w, err)
		return
	}
	code := http.StatusOK
	if taken {
		code = http.StatusCreated
	}
	s.reply(w, code, catalog.TraceResponse{Schema: catalog.Schema, Taken: taken})
}

func (s *service) receiveTrace(w http.ResponseWriter, r *http.Request, version string) (taken bool, err error) {
	publisher, host := carries(r, s.token), carries(r, s.traceToken)
	if !publisher && !host {
		return false, fmt.Errorf("%w: the trace token is missing or wrong (--trace-token-file)", catalog.ErrUnauthorized)
	}
	rel, err := s.shelf.find(r.Context(), version)
	if err != nil {
		return false, err
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false, err
	}
	name := strings.ReplaceAll(from.Addr().Unmap().WithZone("").String(), ":", "_")
	limit := int64(prefetch.MaxBytes)
	if !publisher {
		limit = prefetch.MaxSharedBytes
		if open, err := s.traces.wants(version, name, time.Now()); err != nil || !open {
			return false, err
		}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(traceWait)) // not every writer can; the server's can
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return false, fmt.Errorf("%w: %w", prefetch.ErrTrace, err)
	}
	if publisher {
		return true, s.traces.publish(rel, raw)
	}
	taken, err = s.traces.take(rel, name, raw, time.Now())
	if taken {
		s.log.Info("took a trace", "version", version, "host", name, "bytes", len(raw))
	}
	return taken, err
}
