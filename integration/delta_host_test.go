package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// deltaHost is an origin and a host on loopback, with nothing of the machine's
// own configuration.
type deltaHost struct {
	t        *testing.T
	bin, dir string
	url      string
}

func newDeltaHost(t *testing.T) *deltaHost {
	t.Helper()
	h := &deltaHost{t: t, bin: dcfsBinary(t), dir: t.TempDir()}
	h.run("origin", "key", "generate", filepath.Join(h.dir, "key"))
	must(t, os.Mkdir(filepath.Join(h.dir, "trusted"), 0o755))
	must(t, os.Rename(filepath.Join(h.dir, "key.pub"), filepath.Join(h.dir, "trusted", "key.pub")))
	return h
}

func (h *deltaHost) command(ctx context.Context, who string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.bin, args...)
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "DCFS_") })
	cmd.Env = append(env, "DCFS_STATE="+filepath.Join(h.dir, who), "DCFS_RUN="+filepath.Join(h.dir, who+".run"),
		"DCFS_TRUSTED="+filepath.Join(h.dir, "trusted"))
	return cmd
}

// run runs a command to its end, two minutes at most, and returns its stdout.
func (h *deltaHost) run(who string, args ...string) []byte {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := h.command(ctx, who, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("dcfs %v: %v\n%s", args, err, &stderr)
	}
	if testing.Verbose() && args[0] == "fetch" {
		for line := range strings.Lines(stderr.String()) {
			if strings.Contains(line, "reused") {
				h.t.Log(strings.TrimSpace(line))
			}
		}
	}
	return out
}

// serve starts the origin; it ends with the test.
func (h *deltaHost) serve() {
	h.t.Helper()
	addr := freeAddr(h.t)
	h.url = "http://" + addr
	ctx, cancel := context.WithCancel(context.Background())
	cmd := h.command(ctx, "origin", "origin", "--listen", addr, "--peer-listen", "127.0.0.1:0")
	var log bytes.Buffer
	cmd.Stderr = &log
	must(h.t, cmd.Start())
	h.t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	wait, stop := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer stop()
	err := lab.Poll(wait, func() (bool, error) {
		resp, err := http.Get(h.url + "/healthz")
		if err != nil {
			return false, nil
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
	if err != nil {
		h.t.Fatalf("the origin does not answer: %v\n%s", err, &log)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// publish returns the metainfo.
func (h *deltaHost) publish(dir, version string) []byte {
	h.t.Helper()
	file := filepath.Join(h.dir, version+".torrent")
	h.run("origin", "publish", dir, "--as", version, "--key", filepath.Join(h.dir, "key.key"), "--out", file)
	torrent, err := os.ReadFile(file)
	must(h.t, err)
	return torrent
}

// deltaFigures is what `fetch --json` says at its end.
type deltaFigures struct {
	State   string `json:"state"`
	Bytes   int64  `json:"bytes"`
	Fetched int64  `json:"bytes_fetched"`
	Reused  int64  `json:"bytes_reused"`
}

func (h *deltaHost) fetch(version, dest string, more ...string) (f deltaFigures) {
	h.t.Helper()
	args := []string{"fetch", version, dest, "--origin", h.url, "--linger", "0s", "--peer-listen", "127.0.0.1:0", "--json"}
	out := h.run("host", append(args, more...)...)
	if err := json.Unmarshal(out, &f); err != nil || f.State != "done" {
		h.t.Fatalf("fetch --json: %v: %s", err, out)
	}
	return f
}
