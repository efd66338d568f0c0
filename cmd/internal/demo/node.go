package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dcfs/cmd/internal/control"
)

const (
	pollEvery  = 20 * time.Millisecond
	askTimeout = 2 * time.Second
)

// node is one host of the demo.
type node struct {
	name, state, run, mount, dest, link string

	proc    *process
	started time.Time
	peer    string // where it accepts peers
	fig     Node
}

func (s *story) newNode(name string) *node {
	n := &node{
		name:  name,
		state: s.path(name, "state"),
		run:   s.path(name, "run"),
		mount: s.path(name, "mount"),
		dest:  s.path(name, "releases", "demo-1"),
		link:  s.path(name, "current"),
		fig:   Node{Name: name},
	}
	s.nodes = append(s.nodes, n)
	return n
}

// startNode starts a node for a release, mounting where that works.
func (s *story) startNode(n *node, release string, extra ...string) error {
	for _, dir := range []string{n.state, n.run, filepath.Dir(n.dest)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	args := []string{"fetch", release, n.dest}
	if s.fig.Mounted {
		if err := os.Mkdir(n.mount, 0o755); err != nil {
			return err
		}
		args = []string{"mount", release, n.mount, "--dest", n.dest}
	}
	args = append(args, "--state", n.state, "--run", n.run, "--activate", n.link,
		"--trusted", s.path("trusted"), "--peer-listen", "127.0.0.1:0", "--linger", linger.String())
	n.started = time.Now()
	var err error
	n.proc, err = s.start(n.name, nil, append(args, extra...)...)
	return err
}

func (s *story) ask(ctx context.Context, n *node) (control.Status, error) {
	return control.Ask(ctx, control.SocketPath(n.run, n.proc.pid()), askTimeout)
}

// await asks a node until it has reached a state.
func (s *story) await(ctx context.Context, n *node, want control.State) (control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		st, err := s.ask(ctx, n)
		if err == nil && st.State.Reached(want) {
			return st, nil
		}
		select {
		case <-n.proc.done:
			return st, n.proc.failure()
		case <-ctx.Done():
			return st, fmt.Errorf("%s is %q and not yet %q: %w", n.name, st.State, want, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// measure takes each node's counters.
func (s *story) measure(ctx context.Context) error {
	for _, n := range s.nodes {
		st, err := s.ask(ctx, n)
		if err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		n.fig.Received, n.fig.Sent = st.BytesFetched, st.BytesUploaded
	}
	return nil
}

// walk counts the entries below dir and stats each.
func walk(dir string) (entries int, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			entries++
			_, err = d.Info()
		}
		return err
	})
	return entries, err
}

// sameBytes compares a few KiB in the middle of one file in two trees.
func sameBytes(a, b, name string) error {
	var got [2][]byte
	for i, dir := range []string{a, b} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer f.Close()
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		got[i] = make([]byte, min(64<<10, fi.Size()/2))
		if _, err := io.ReadFull(io.NewSectionReader(f, fi.Size()/2, fi.Size()), got[i]); err != nil {
			return err
		}
	}
	if !bytes.Equal(got[0], got[1]) {
		return fmt.Errorf("%s differs between %s and %s", name, a, b)
	}
	return nil
}

// whyNoMount says what stands in the way of a mount; empty for nothing.
func whyNoMount() string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	f.Close()
	return ""
}
