// Package demo tells the whole story of a release on one machine: an origin and
// several nodes, all real processes of this program on loopback, each with
// directories of its own below one that is removed at the end.
//
// It drives the program from outside, as an operator would, and must never use
// a shortcut that an operator does not have. Every figure that it prints was
// measured in the run.
package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"dcfs/cmd/internal/control"
)

const (
	version    = "demo/1"
	configFile = "dcfs.yaml" // an empty one: this machine's is not the demo's

	// MinSize is the smallest sample tree worth distributing.
	MinSize = 1 << 20
	// MaxNodes bounds how many processes a demo starts.
	MaxNodes = 64

	linger   = time.Hour       // the nodes seed until the demo ends them
	deadline = 5 * time.Minute // for any one stage on any one node
)

// Config is what a demo needs.
type Config struct {
	Exe   string    // this program
	Nodes int       // besides the origin and the late joiner
	Size  int64     // bytes of the sample tree, about
	Dir   string    // the demo's directory is made in here; empty: the system's
	Keep  bool      // leave the directory behind
	Story io.Writer // what happens, line by line; not nil
}

// story is one run.
type story struct {
	Config
	dir    string
	url    string // of the origin
	origin *process
	procs  []*process
	nodes  []*node
	fig    Figures
}

// Run tells the story and returns its figures. Whatever it started has ended
// and whatever it mounted is unmounted when it returns, also when ctx ends in
// the middle; the directory is removed unless Keep is set.
func Run(ctx context.Context, cfg Config) (fig Figures, err error) {
	if cfg.Nodes < 1 || cfg.Nodes > MaxNodes {
		return fig, fmt.Errorf("demo: %d nodes: want 1 to %d", cfg.Nodes, MaxNodes)
	}
	if cfg.Size < MinSize {
		return fig, fmt.Errorf("demo: a tree of %d bytes: want at least %d", cfg.Size, MinSize)
	}
	dir, err := makeDir(cfg.Dir)
	if err != nil {
		return fig, fmt.Errorf("demo: %w", err)
	}
	s := &story{Config: cfg, dir: dir}
	defer func() {
		if e := s.cleanUp(); err == nil {
			err = e
		}
	}()
	for _, act := range []func(context.Context) error{
		s.publish, s.startOrigin, s.startNodes, s.lazyRead,
		s.materialise, s.killOrigin, s.lateJoiner, s.verify,
	} {
		if err := act(ctx); err != nil {
			return s.fig, fmt.Errorf("demo: %w", err)
		}
	}
	s.fig.sum()
	return s.fig, nil
}

func makeDir(parent string) (string, error) {
	if parent != "" {
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return "", err
		}
	}
	dir, err := os.MkdirTemp(parent, "dcfs-demo-")
	if err != nil {
		return "", err
	}
	return filepath.Abs(dir)
}

func (s *story) say(format string, args ...any) {
	fmt.Fprintf(s.Story, format+"\n", args...)
}

func (s *story) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// publish makes the sample tree, a key and a signed release of the tree.
func (s *story) publish(ctx context.Context) error {
	if err := os.WriteFile(s.path(configFile), nil, 0o644); err != nil {
		return err
	}
	s.say("1. a sample tree of about %s, a key pair, and a signed release", size(s.Size))
	if err := makeSample(ctx, s.path("tree"), s.Size); err != nil {
		return fmt.Errorf("sample tree: %w", err)
	}
	if err := os.MkdirAll(s.path("trusted"), 0o755); err != nil {
		return err
	}
	if _, err := s.call(ctx, nil, "key", "generate", s.path("trusted", "demo")); err != nil {
		return err
	}
	began := time.Now()
	var out struct {
		Files  int   `json:"files"`
		Bytes  int64 `json:"bytes"`
		Pieces int   `json:"pieces"`
	}
	_, err := s.call(ctx, &out, "publish", s.path("tree"), "--as", version,
		"--key", s.path("trusted", "demo.key"), "--state", s.path("origin"),
		"--out", s.path("demo.torrent"), "--json")
	if err != nil {
		return err
	}
	s.fig.Publish = time.Since(began)
	s.fig.Files, s.fig.Bytes, s.fig.Pieces = out.Files, out.Bytes, out.Pieces
	s.say("   %d files, %s, %d pieces, published in %s",
		out.Files, size(out.Bytes), out.Pieces, short(s.fig.Publish))
	return nil
}

func (s *story) startOrigin(ctx context.Context) error {
	var ready struct {
		URL string `json:"url"`
	}
	p, err := s.startReady(ctx, "origin", &ready, "origin",
		"--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0",
		"--state", s.path("origin"), "--run", s.path("origin", "run"), "--json")
	if err != nil {
		return err
	}
	s.origin, s.url = p, ready.URL
	s.say("2. the origin serves it at %s (process %d)", s.url, p.pid())
	return nil
}

// startNodes starts all nodes at once.
func (s *story) startNodes(ctx context.Context) error {
	why := whyNoMount()
	s.fig.Mounted = why == ""
	how := "mount"
	if why != "" {
		s.say("   %s: the nodes fetch instead of mounting", why)
		how = "fetch"
	}
	s.say("3. %d nodes %s it at the same time", s.Nodes, how)
	for i := range s.Nodes {
		n := s.newNode(fmt.Sprintf("node-%d", i+1))
		extra := []string{"--origin", s.url}
		if i == 0 && s.fig.Mounted {
			extra = append(extra, "--down", fmt.Sprint(s.throttle()))
		}
		if err := s.startNode(n, version, extra...); err != nil {
			return err
		}
	}
	if s.fig.Mounted {
		s.say("   node-1 is held back to %s/s, so that its reads come before its copy", size(s.throttle()))
	}
	return s.ready(ctx, s.nodes)
}

// ready waits for nodes to be of use, each by its own clock.
func (s *story) ready(ctx context.Context, nodes []*node) error {
	first := control.Mounted
	if !s.fig.Mounted {
		first = control.Complete
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		group.Go(func() error {
			_, err := s.await(ctx, n, first)
			n.fig.Ready = time.Since(n.started)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, n := range nodes {
		s.say("   %s is %s after %s", n.name, first, short(n.fig.Ready))
	}
	return nil
}

// throttle is a rate at which the tree takes about four seconds.
func (s *story) throttle() int64 { return max(s.Size/4, 1<<20) }

// lazyRead uses the mount of the first node before its bytes are there.
func (s *story) lazyRead(ctx context.Context) error {
	if !s.fig.Mounted {
		s.say("4. no mount, so no lazy read")
		return nil
	}
	n := s.nodes[0]
	began := time.Now()
	entries, err := walk(n.mount)
	if err != nil {
		return fmt.Errorf("walk through the mount: %w", err)
	}
	s.fig.Walk, s.fig.Entries = time.Since(began), entries
	before, err := s.ask(ctx, n)
	if err != nil {
		return err
	}
	began = time.Now()
	if err := sameBytes(n.mount, s.path("tree"), lastFile); err != nil {
		return fmt.Errorf("lazy read: %w", err)
	}
	s.fig.LazyRead = time.Since(began)
	s.fig.LazyHave = share(before.BytesHave, before.Bytes)
	s.say("4. on node-1, find(1) sees %d entries in %s; with %.0f%% of the bytes there,", entries, short(s.fig.Walk), 100*s.fig.LazyHave)
	s.say("   a read from the middle of the last file took %s and was right", short(s.fig.LazyRead))
	return nil
}

// materialise waits for every copy and looks at the swapped links.
func (s *story) materialise(ctx context.Context) error {
	s.say("5. every node leaves a real copy and swaps its link")
	for _, n := range s.nodes {
		if err := s.finish(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// finish waits for one node's copy and its link. The link is swapped before
// the linger begins.
func (s *story) finish(ctx context.Context, n *node) error {
	st, err := s.await(ctx, n, control.Lingering)
	if err != nil {
		return err
	}
	n.fig.Copy = st.StateSince.Sub(n.started)
	n.peer = st.PeerListen
	target, err := filepath.EvalSymlinks(n.link)
	if err != nil {
		return fmt.Errorf("%s: the link was not swapped: %w", n.name, err)
	}
	if target != n.dest {
		return fmt.Errorf("%s: the link leads to %s, not to %s", n.name, target, n.dest)
	}
	s.say("   %s: copy and link after %s", n.name, short(n.fig.Copy))
	return nil
}

// killOrigin takes the traffic's figures and then the origin.
func (s *story) killOrigin(ctx context.Context) error {
	if err := s.measure(ctx); err != nil {
		return err
	}
	s.origin.kill()
	s.say("6. the origin is killed (kill -9)")
	return nil
}

// lateJoiner is a node that comes when only other nodes are left to ask.
func (s *story) lateJoiner(ctx context.Context) error {
	var peers []string
	for _, n := range s.nodes {
		peers = append(peers, "--peer", n.peer)
	}
	late := s.newNode("late")
	if err := s.startNode(late, s.path("demo.torrent"), peers...); err != nil {
		return err
	}
	s.say("7. a late joiner knows the .torrent and the nodes' addresses only")
	if err := s.ready(ctx, s.nodes[s.Nodes:]); err != nil {
		return err
	}
	if err := s.finish(ctx, late); err != nil {
		return err
	}
	return s.measure(ctx)
}

// verify re-reads every copy against the signed release.
func (s *story) verify(ctx context.Context) error {
	s.say("8. every copy is read again and compared with the signed release")
	for _, n := range s.nodes {
		_, err := s.call(ctx, nil, "verify", s.path("demo.torrent"), n.dest,
			"--trusted", s.path("trusted"), "--state", n.state, "--quiet")
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		n.fig.Verified = true
		s.fig.Nodes = append(s.fig.Nodes, n.fig)
	}
	s.say("   %d of %d copies are right", len(s.fig.Nodes), len(s.nodes))
	return nil
}
