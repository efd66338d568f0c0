package integration

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dcfs/fs/prefetch"
	"dcfs/integration/lab"
)

// trace asks the origin for a release's trace, from its own host.
func (o *origin) trace(version string) (status int, hot []string) {
	o.t.Helper()
	resp, err := o.Client().Get(o.url() + "/v1/releases/" + version + ".trace")
	must(o.t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, nil
	}
	trace, err := prefetch.Read(resp.Body)
	must(o.t, err)
	if trace.Release != version {
		o.t.Errorf("the trace of %s says that it is of %s", version, trace.Release)
	}
	return resp.StatusCode, trace.Hot()
}

func (o *origin) putTrace(h *lab.Host, version, token, body string) (status int, answer string) {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), http.MethodPut, o.url()+"/v1/releases/"+version+".trace", strings.NewReader(body))
	must(o.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := h.Client().Do(req)
	must(o.t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	must(o.t, err)
	return resp.StatusCode, string(raw)
}

// TestTraces: what the first host reads is what later hosts fetch first, and a
// trace of one release serves the next one, through the origin or by hand.
func TestTraces(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Root, lab.FUSE)
	l := lab.New(t, "origin", "first", "later", "byhand", "stranger")
	token := filepath.Join(t.TempDir(), "trace.token")
	must(t, os.WriteFile(token, []byte("i-am-a-node\n"), 0o600))
	o := newOrigin(t, l.Host("origin"), "--trace-token-file", token)
	dir := sampleTree(t, 50, 12, 3<<20)
	v1 := o.publish(dir, "app/v1")
	if code, _ := o.trace("app/v1"); code != http.StatusNotFound {
		t.Errorf("a trace before anything was read: status %d", code)
	}

	// The first host reads, from the last to the first, and shares.
	hot := []string{"big/09.bin", "bin/tool", "big/07.bin"}
	own := filepath.Join(l.Host("first").Dir, "own.trace")
	first, p := o.mountTraced(l.Host("first"), v1, "--trace-token-file", token, "--trace-out", own)
	for _, name := range hot {
		_, err := os.ReadFile(filepath.Join(first, name))
		must(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got []string
	if err := lab.Poll(ctx, func() (bool, error) { _, got = o.trace("app/v1"); return len(got) > 0, nil }); err != nil {
		t.Fatalf("no trace came to the origin: %v\n%s", err, p.Tail(20))
	}
	if !slices.Equal(got, hot) {
		t.Errorf("the origin serves %q, want %q", got, hot)
	}
	stop(t, p)

	// Nobody else has a say.
	const entry = `{"schema":1,"release":"app/v1"}` + "\n" + `{"path":"secret","off":0,"len":1,"at_ms":0}` + "\n"
	for name, tc := range map[string]struct {
		token, body string
		want        int
	}{
		"no token":        {"", entry, http.StatusForbidden},
		"another token":   {"guess", entry, http.StatusForbidden},
		"no trace":        {"i-am-a-node", "<html>", http.StatusUnprocessableEntity},
		"another release": {"i-am-a-node", strings.Replace(entry, "app/v1", "app/v0", 1), http.StatusUnprocessableEntity},
		"too long":        {"i-am-a-node", strings.Repeat(" ", prefetch.MaxSharedBytes+1), http.StatusUnprocessableEntity},
	} {
		if code, answer := o.putTrace(l.Host("stranger"), "app/v1", tc.token, tc.body); code != tc.want {
			t.Errorf("%s: status %d, want %d: %s", name, code, tc.want, answer)
		}
	}
	if _, got := o.trace("app/v1"); !slices.Equal(got, hot) {
		t.Errorf("the origin now serves %q", got)
	}

	// A later host has it before the rest, without having been asked for it.
	o.follows(l.Host("later"), dir, v1, hot)
	// A trace of the old release on the new one: by hand, and at publication.
	must(t, flip(filepath.Join(dir, "big/03.bin")))
	v2 := o.publish(dir, "app/v2")
	o.follows(l.Host("byhand"), dir, v2, hot, "--trace", own)
	o.publish(dir, "app/v3", "--trace", own)
	if _, got := o.trace("app/v3"); !slices.Equal(got, hot) {
		t.Errorf("of app/v3 the origin serves %q, want %q", got, hot)
	}
}

// mountTraced mounts a release on the host and returns where.
func (o *origin) mountTraced(h *lab.Host, release published, more ...string) (string, *lab.Process) {
	o.t.Helper()
	n := o.newNode(h)
	mnt := filepath.Join(n.Mnt(), "m")
	must(o.t, os.Mkdir(mnt, 0o755))
	args := []string{"mount", release.Version, mnt, "--origin", o.url(), "--dest", filepath.Join(n.Releases(), "r"),
		"--linger", "10m", "--at-end", "unmount"}
	p := n.daemon("mount", append(args, more...)...)
	n.reach(p, release.Version, "mounted", 30*time.Second)
	return mnt, p
}

// follows mounts on a host with a slow link until what the trace names is
// there, and cuts the link: it can be read, and the rest is not there.
func (o *origin) follows(h *lab.Host, dir string, release published, hot []string, more ...string) {
	o.t.Helper()
	h.Shape(lab.Shape{Down: "40mbit"})
	mnt, p := o.mountTraced(h, release, append(more, "--read-timeout", "2s")...)
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
	defer cancel()
	err := p.WaitLog(ctx, "all that the trace names is here")
	h.Cut()
	if err != nil {
		o.t.Fatalf("%s: %v\n%s", h.Name, err, p.Tail(40))
	}
	for _, name := range hot {
		want, err := os.ReadFile(filepath.Join(dir, name))
		must(o.t, err)
		if got, err := os.ReadFile(filepath.Join(mnt, name)); err != nil || !bytes.Equal(got, want) {
			o.t.Errorf("%s: %s, which the trace names: %d bytes, %v", h.Name, name, len(got), err)
		}
	}
	n := o.newNode(h)
	if s := n.status(release.Version); s.BytesHave >= s.Bytes/2 {
		o.t.Errorf("%s has %d of %d bytes: the trace names less than a quarter", h.Name, s.BytesHave, s.Bytes)
	}
	stop(o.t, p)
	h.Heal()
}
