package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// binaryDir holds the binary under test; TestMain removes it.
var binaryDir string

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(play(role, os.Args[1:]))
	}
	var err error
	if binaryDir, err = os.MkdirTemp("", "dcfs-bin-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(binaryDir)
	os.Exit(code)
}

var build = sync.OnceValues(func() (string, error) {
	// Others than root run it, too.
	if err := os.Chmod(binaryDir, 0o755); err != nil {
		return "", err
	}
	bin := filepath.Join(binaryDir, "dcfs")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./cmd/dcfs")
	cmd.Dir = moduleRoot
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ./cmd/dcfs: %w\n%s", err, out)
	}
	return bin, nil
})

// dcfsBinary is the path of the built dcfs.
func dcfsBinary(t testing.TB) string {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// node is a host with dcfs on it.
type node struct {
	*lab.Host
	t   testing.TB
	bin string
}

func newNode(t testing.TB, h *lab.Host) *node {
	t.Helper()
	return &node{Host: h, t: t, bin: dcfsBinary(t)}
}

// env is the environment of dcfs on the host: its own directories, and nothing
// of the machine's own configuration.
func (n *node) env() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "DCFS_") })
	return append(env, "DCFS_STATE="+n.State(), "DCFS_RUN="+n.Run(), "DCFS_TRUSTED="+n.trusted())
}

func (n *node) trusted() string { return filepath.Join(n.Dir, "trusted.d") }

// result is how a command ended.
type result struct {
	args   []string
	stdout string
	stderr string
	code   int
}

func (r result) String() string {
	return fmt.Sprintf("dcfs %s: exit %d\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code, r.stdout, r.stderr)
}

// dcfs runs a command to its end, two minutes at most.
func (n *node) dcfs(args ...string) result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := n.Command(ctx, n.bin, args...)
	cmd.Env = n.env()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		n.t.Fatalf("%s: dcfs %v: %v, %v\n%s%s", n.Name, args, err, ctx.Err(), &stdout, &stderr)
	}
	return result{args, stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ok runs a command that must exit 0 and returns its stdout.
func (n *node) ok(args ...string) string {
	n.t.Helper()
	r := n.dcfs(args...)
	if r.code != 0 {
		n.t.Fatalf("%s: want exit 0\n%v", n.Name, r)
	}
	return r.stdout
}

// fails runs a command that must exit with the code and say each of the words
// on stderr.
func (n *node) fails(code int, words []string, args ...string) result {
	n.t.Helper()
	r := n.dcfs(args...)
	if r.code != code {
		n.t.Errorf("%s: want exit %d\n%v", n.Name, code, r)
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			n.t.Errorf("%s: stderr does not say %q\n%v", n.Name, w, r)
		}
	}
	return r
}

// daemon starts a command that goes on; see lab.Host.Start for its end.
func (n *node) daemon(label string, args ...string) *lab.Process {
	n.t.Helper()
	return n.Start(label, func(c *exec.Cmd) { c.Env = n.env() }, n.bin, args...)
}

// trust makes the host trust a public key file.
func (n *node) trust(pub string) {
	n.t.Helper()
	text, err := os.ReadFile(pub)
	must(n.t, err)
	must(n.t, os.MkdirAll(n.trusted(), 0o755))
	must(n.t, os.WriteFile(filepath.Join(n.trusted(), filepath.Base(pub)), text, 0o644))
}

// status is what the tests read of one process in `status --json`.
type status struct {
	PID           int    `json:"pid"`
	Version       string `json:"version"`
	Infohash      string `json:"infohash"`
	State         string `json:"state"`
	Reason        string `json:"reason"`
	Bytes         int64  `json:"bytes"`
	BytesHave     int64  `json:"bytes_have"`
	BytesFetched  int64  `json:"bytes_fetched"`
	BytesOrigin   int64  `json:"bytes_origin"`
	BytesPeers    int64  `json:"bytes_peers"`
	BytesWebSeed  int64  `json:"bytes_webseed"`
	BytesUploaded int64  `json:"bytes_uploaded"`
	Peers         int    `json:"peers"`
	PeerListen    string `json:"peer_listen"`
	Banned        int    `json:"banned"`
	LingerWhy     string `json:"linger_why"`
	LingerLeftMS  int64  `json:"linger_left_ms"`
	Waiting       []struct {
		Path  string `json:"path"`
		AgeMS int64  `json:"age_ms"`
	} `json:"waiting"`
}

// statuses asks every dcfs process of the host.
func (n *node) statuses() []status {
	n.t.Helper()
	var answer struct {
		Schema    int      `json:"schema"`
		Processes []status `json:"processes"`
	}
	out := n.ok("status", "--json")
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Schema != 1 {
		n.t.Fatalf("%s: status --json: %v: %s", n.Name, err, out)
	}
	return answer.Processes
}

// status is that of the release; the zero value when no process has it.
func (n *node) status(version string) status {
	n.t.Helper()
	for _, s := range n.statuses() {
		if s.Version == version {
			return s
		}
	}
	return status{}
}

var stateRank = map[string]int{
	"announced": 1, "mounted": 2, "complete": 3, "materialised": 4, "lingering": 5, "done": 6,
}

// reach waits until the release is in the state or beyond it. It fails the test
// when the release failed, p has ended, or the time is up.
func (n *node) reach(p *lab.Process, version, state string, within time.Duration) status {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), within)
	defer cancel()
	var last status
	err := lab.Poll(ctx, func() (bool, error) {
		ended := p != nil && !p.Running()
		s := n.status(version)
		if s.State != "" {
			last = s
		}
		switch {
		case last.State == "failed":
			return false, errors.New("failed: " + last.Reason)
		case stateRank[last.State] >= stateRank[state]:
			return true, nil
		case ended:
			return false, errors.New("the process has ended")
		}
		return false, nil
	})
	if err != nil {
		tail := ""
		if p != nil {
			tail = p.Tail(40)
		}
		n.t.Fatalf("%s: %s does not reach %q: %v; last status %+v\n%s", n.Name, version, state, err, last, tail)
	}
	return last
}

// origin is a node with the origin service running, and the key that signs.
type origin struct {
	*node
	proc  *lab.Process
	key   string // path without .key and .pub
	token string // path of the token file
}

const (
	originPort = "7070"
	peerPort   = "7071"
)

// newOrigin starts the service on the host and waits until it answers.
func newOrigin(t testing.TB, h *lab.Host, more ...string) *origin {
	t.Helper()
	o := &origin{node: newNode(t, h), key: filepath.Join(h.Dir, "release"), token: filepath.Join(h.Dir, "token")}
	o.ok("key", "generate", o.key)
	o.trust(o.key + ".pub")
	must(t, os.WriteFile(o.token, []byte("let-me-publish\n"), 0o600))
	o.start(more...)
	return o
}

func (o *origin) start(more ...string) {
	o.t.Helper()
	args := []string{"origin", "--listen", o.Addr + ":" + originPort, "--peer-listen", o.Addr + ":" + peerPort,
		"--publish-token-file", o.token}
	o.proc = o.daemon("origin", append(args, more...)...)
	ctx, cancel := context.WithTimeout(o.t.Context(), 20*time.Second)
	defer cancel()
	client := o.Client()
	err := lab.Poll(ctx, func() (bool, error) {
		if !o.proc.Running() {
			return false, errors.New("it has ended")
		}
		resp, err := client.Get(o.url() + "/healthz")
		if err != nil {
			return false, nil
		}
		resp.Body.Close()
		return resp.StatusCode == 200, nil
	})
	if err != nil {
		o.t.Fatalf("origin does not answer: %v\n%s", err, o.proc.Tail(40))
	}
}

func (o *origin) url() string { return "http://" + o.Addr + ":" + originPort }

// published is the answer of `publish --json`.
type published struct {
	Schema      int    `json:"schema"`
	Version     string `json:"version"`
	Infohash    string `json:"infohash"`
	Files       int64  `json:"files"`
	Bytes       int64  `json:"bytes"`
	Pieces      int64  `json:"pieces"`
	PieceLength int64  `json:"piece_length"`
	Changed     bool   `json:"changed"`
	Torrent     string `json:"torrent"`

	file string // of --out
}

// publish signs the directory and hands it to the origin.
func (o *origin) publish(dir, version string, more ...string) published {
	o.t.Helper()
	file := filepath.Join(o.Dir, strings.ReplaceAll(version, "/", "_")+".torrent")
	args := []string{"publish", dir, "--as", version, "--key", o.key + ".key", "--origin", o.url(),
		"--publish-token-file", o.token, "--out", file, "--json"}
	out := o.ok(append(args, more...)...)
	p := published{file: file}
	if err := json.Unmarshal([]byte(out), &p); err != nil || p.Schema != 1 || p.Version != version {
		o.t.Fatalf("publish --json: %v: %s", err, out)
	}
	return p
}

// node joins a host that trusts the origin's key.
func (o *origin) newNode(h *lab.Host) *node {
	o.t.Helper()
	n := newNode(o.t, h)
	n.trust(o.key + ".pub")
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sampleTree makes a directory with one of each kind and big files of the given
// size; the same arguments make the same content.
func sampleTree(t testing.TB, small, big, size int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sample")
	r := rand.NewChaCha8([32]byte{1})
	write := func(name string, mode os.FileMode, size int) {
		b := make([]byte, size)
		r.Read(b)
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, b, mode))
	}
	for i := range small {
		write(fmt.Sprintf("lib/%02d/f%03d", i%7, i), 0o644, 1+(i*i*37)%20_000)
	}
	for i := range big {
		write(fmt.Sprintf("big/%02d.bin", i), 0o644, size)
	}
	write("bin/tool", 0o755, 123_457)
	write("secret", 0o600, 17)
	write("empty", 0o644, 0)
	must(t, os.MkdirAll(filepath.Join(dir, "void/inner"), 0o750))
	must(t, os.Symlink("../bin/tool", filepath.Join(dir, "lib/tool")))
	must(t, os.Link(filepath.Join(dir, "bin/tool"), filepath.Join(dir, "lib/tool.hard")))
	for _, p := range []string{"lib/00", "void", "."} {
		must(t, os.Chtimes(filepath.Join(dir, p), time.Unix(1e9, 123456789), time.Unix(1e9, 123456789)))
	}
	return dir
}
