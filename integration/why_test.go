package integration

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// reason is what the tests read of `why --json`.
type reason struct {
	Schema      int    `json:"schema"`
	Version     string `json:"version"`
	Path        string `json:"path"`
	Bytes       int64  `json:"bytes"`
	PiecesTotal int    `json:"pieces_total"`
	PiecesHave  int    `json:"pieces_have"`
	Readers     int    `json:"readers"`
	Bound       struct {
		Kind string `json:"kind"`
		Text string `json:"text"`
	} `json:"bound"`
	Pieces []reasonPiece `json:"pieces"`
	Links  []struct {
		Addr    string `json:"addr"`
		Origin  bool   `json:"origin"`
		Choking bool   `json:"choking"`
		Holds   int    `json:"holds"`
		Asked   int    `json:"asked"`
	} `json:"links"`
}

type reasonPiece struct {
	Piece   int      `json:"piece"`
	State   string   `json:"state"`
	From    []string `json:"from"`
	Holders []string `json:"holders"`
	Readers int      `json:"readers"`
	Asked   []struct {
		Addr  string `json:"addr"`
		AgeMS int64  `json:"age_ms"`
	} `json:"asked"`
}

func (n *node) why(path string) reason {
	n.t.Helper()
	r, late := n.askWhy(path)
	if late {
		n.t.Fatalf("%s: why %s: no answer in time", n.Name, path)
	}
	return r
}

// askWhy also says whether the process was too busy to answer (75).
func (n *node) askWhy(path string) (r reason, late bool) {
	n.t.Helper()
	out := n.dcfs("why", path, "--json")
	if out.code == 75 {
		return r, true
	}
	if err := json.Unmarshal([]byte(out.stdout), &r); out.code != 0 || err != nil || r.Schema != 1 {
		n.t.Fatalf("%s: why --json: %v\n%v", n.Name, err, out)
	}
	return r, false
}

// bound waits until why names the kind, and returns that answer.
func (n *node) bound(p *lab.Process, path, kind string, words ...string) reason {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 40*time.Second)
	defer cancel()
	var last reason
	err := lab.Poll(ctx, func() (bool, error) {
		if !p.Running() {
			return false, fmt.Errorf("the process has ended")
		}
		r, late := n.askWhy(path)
		if !late {
			last = r
		}
		return !late && last.Bound.Kind == kind, nil
	})
	if err != nil {
		n.t.Fatalf("why does not name %q: %v: %+v\n%s", kind, err, last, p.Tail(20))
	}
	for _, w := range words {
		if !strings.Contains(last.Bound.Text, w) {
			n.t.Errorf("why names %q and does not say %q: %s", kind, w, last.Bound.Text)
		}
	}
	return last
}

// reader reads a file through the mount until the test ends, so that somebody
// waits.
func (l *lifeLab) reader(t *testing.T, path string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := l.n.Command(ctx, "cat", path)
	must(t, cmd.Start())
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }()
	t.Cleanup(func() { cancel(); <-done })
}

const whyFile = "big/00.bin"

// start mounts the release and returns the file that is asked about.
func (l *lifeLab) start(t *testing.T, more ...string) (p *lab.Process, file string) {
	t.Helper()
	mountpoint, dest := l.paths(t)
	args := append([]string{"mount", l.release.file, mountpoint, "--linger", "10m", "--at-end", "unmount",
		"--read-timeout", "2m", "--wait", "2m"}, more...)
	if !slices.Contains(more, "--dest") {
		args = append(args, "--dest", dest)
	}
	p = l.n.daemon("mount", args...)
	l.n.reach(p, l.release.Version, "mounted", 30*time.Second)
	return p, filepath.Join(mountpoint, whyFile)
}

func (l *lifeLab) seeder() string { return l.o.Addr + ":" + peerPort }

// TestWhyWholeStory: one file from nobody there, over a peer that freezes, to
// all here, in the mount, by a symlink, and below the copy that is being made.
func TestWhyWholeStory(t *testing.T) {
	l := newLifeLab(t, 1, 1<<20)
	l.o.proc.Kill()
	p, file := l.start(t, "--peer", l.seeder(), "--down", "256KiB")
	l.reader(t, file)
	r := l.n.bound(p, file, "no-peers")
	if r.Path != whyFile || r.Version != l.release.Version || r.Bytes != 1<<20 || r.PiecesTotal < 4 || r.PiecesHave != 0 {
		t.Errorf("before anybody is there: %+v", r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := lab.Poll(ctx, func() (bool, error) { r = l.n.why(file); return r.Readers > 0, nil })
	if err != nil || !slices.ContainsFunc(r.Pieces, func(p reasonPiece) bool {
		return p.Readers > 0 && p.State == "absent"
	}) {
		t.Errorf("somebody reads, and why does not say so: %v: %+v", err, r)
	}

	l.o.start()
	r = l.n.bound(p, file, "down-cap", "256 KiB")
	if len(r.Links) != 1 || r.Links[0].Addr != l.seeder() || !r.Links[0].Origin || r.Links[0].Holds == 0 {
		t.Errorf("the origin is the only peer: %+v", r.Links)
	}
	_, dest := l.paths(t)
	if other := l.n.why(filepath.Join(dest, whyFile)); other.Path != whyFile || other.Bound.Kind == "none" {
		t.Errorf("below the copy that is being made: %+v", other)
	}

	must(t, l.o.proc.Signal(syscall.SIGSTOP))
	r = l.n.bound(p, file, "peer-silent", l.seeder())
	missing := slices.DeleteFunc(r.Pieces, func(p reasonPiece) bool { return p.State == "verified" })
	if len(missing) == 0 || slices.ContainsFunc(missing, func(p reasonPiece) bool { return !slices.Contains(p.Holders, l.seeder()) }) {
		t.Errorf("the frozen peer has all that is missing: %+v", missing)
	}
	must(t, l.o.proc.Signal(syscall.SIGCONT))

	link := filepath.Join(l.n.Dir, "link")
	must(t, os.Symlink(file, link))
	r = l.n.bound(p, link, "none")
	if r.PiecesHave != r.PiecesTotal || r.Readers != 0 {
		t.Errorf("at the end: %+v", r)
	}
	for _, piece := range r.Pieces {
		if piece.State != "verified" || !slices.Equal(piece.From, []string{l.seeder()}) {
			t.Errorf("piece %d is %s and came from %v", piece.Piece, piece.State, piece.From)
		}
	}
	if text := l.n.ok("why", file); !strings.Contains(text, "bound by none") || !strings.Contains(text, l.seeder()) {
		t.Errorf("in words:\n%s", text)
	}
	l.n.fails(66, []string{"no such file in the release"}, "why", filepath.Join(filepath.Dir(filepath.Dir(file)), "nope"))
	l.n.fails(66, []string{"symlink"}, "why", filepath.Join(dest, "lib/tool"))
	l.n.fails(66, []string{"no dcfs process", "try: dcfs status"}, "why", l.n.Dir)
	l.stop(t, p)
}

// scriptedPeer listens in the origin's host and says what it has, in which
// words it is told. It never sends a block.
func scriptedPeer(t *testing.T, l *lifeLab, words ...[]byte) (addr string) {
	t.Helper()
	hash, err := hexBytes(l.release.Infohash)
	must(t, err)
	ln, err := l.o.Listen("tcp", l.o.Addr+":0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				script(c, hash, words)
			}()
		}
	}()
	return ln.Addr().String()
}

func script(c net.Conn, hash []byte, words [][]byte) {
	var theirs [68]byte
	if _, err := io.ReadFull(c, theirs[:]); err != nil {
		return
	}
	head := append([]byte("\x13BitTorrent protocol"), make([]byte, 8)...)
	head = append(append(head, hash...), fmt.Appendf(nil, "-SC0000-%012d", os.Getpid())...)
	for _, w := range words {
		head = append(binary.BigEndian.AppendUint32(head, uint32(len(w))), w...)
	}
	if _, err := c.Write(head); err == nil {
		_, _ = io.Copy(io.Discard, c)
	}
}

func hexBytes(s string) (out []byte, err error) {
	_, err = fmt.Sscanf(s, "%x", &out)
	return out, err
}

// TestWhyNobodyOrChoked: peers that have nothing, and peers that have all of it
// and take no requests.
func TestWhyNobodyOrChoked(t *testing.T) {
	l := newLifeLab(t, 1, 2<<20)
	bits := make([]byte, (l.release.Pieces+7)/8)
	for i := range l.release.Pieces {
		bits[i/8] |= 0x80 >> (i % 8)
	}
	l.o.proc.Kill() // the release's file names its tracker, and that its seeder
	unchoke := []byte{1}
	nothing := scriptedPeer(t, l, append([]byte{5}, make([]byte, len(bits))...), unchoke)
	p, file := l.start(t, "--peer", nothing)
	r := l.n.bound(p, file, "nobody-has-it", nothing)
	if len(r.Links) != 1 || r.Links[0].Holds != 0 || r.Links[0].Choking {
		t.Errorf("a peer with nothing: %+v", r.Links)
	}
	must(t, p.Signal(syscall.SIGTERM))
	<-p.Done()

	stingy := scriptedPeer(t, l, append([]byte{5}, bits...)) // and never an unchoke
	p, file = l.start(t, "--peer", stingy)
	r = l.n.bound(p, file, "choked", stingy)
	if len(r.Links) != 1 || r.Links[0].Holds != r.PiecesTotal || !r.Links[0].Choking {
		t.Errorf("a peer that chokes: %+v", r.Links)
	}
	must(t, p.Signal(syscall.SIGTERM))
	<-p.Done()
}

// TestWhyLinkThenDisk: nobody reads, and a slow link brings what the hosts' own
// plan asks for: who is asked is named. Then the disk fills up.
func TestWhyLinkThenDisk(t *testing.T) {
	l := newLifeLab(t, 2, 4<<20)
	small := t.TempDir()
	must(t, syscall.Mount("tmpfs", small, "tmpfs", 0, "size=24m"))
	t.Cleanup(func() { must(t, l.n.Unmount(small)) })
	l.n.Shape(lab.Shape{Down: "8mbit"})
	p, file := l.start(t, "--peer", l.seeder(), "--dest", filepath.Join(small, "copy"))
	r := l.n.bound(p, file, "peers-and-link", "a second come from 1 peer")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := lab.Poll(ctx, func() (bool, error) {
		r = l.n.why(file)
		return r.PiecesHave == r.PiecesTotal || slices.ContainsFunc(r.Pieces, func(p reasonPiece) bool {
			return len(p.Asked) == 1 && p.Asked[0].Addr == l.seeder() && p.Asked[0].AgeMS < 20_000
		}), nil
	})
	if err != nil || r.PiecesHave == r.PiecesTotal || r.Readers > 0 || len(r.Links) != 1 || r.Links[0].Asked == 0 {
		t.Errorf("who is asked is not named: %v: %+v", err, r)
	}
	fill(t, filepath.Join(small, "other"))
	r = l.n.bound(p, file, "disk", "no space left")
	if r.PiecesHave == r.PiecesTotal {
		t.Errorf("bound by the disk, and all is here: %+v", r)
	}
	must(t, os.Remove(filepath.Join(small, "other")))
	l.n.Shape(lab.Shape{})
	l.n.reach(p, l.release.Version, "lingering", time.Minute)
	l.stop(t, p)
}

// fill writes a file until the filesystem is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for block := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(block)
	}
}

// TestWhyCPU: the process has to share one processor with a program that has
// ten times its weight.
func TestWhyCPU(t *testing.T) {
	lab.Require(t, lab.Tool("taskset"))
	l := newLifeLab(t, 8, 8<<20)
	mountpoint, dest := l.paths(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	hog := exec.CommandContext(ctx, "taskset", "-c", "0", "sh", "-c", "while :; do :; done")
	must(t, hog.Start())
	defer func() { _ = hog.Process.Kill(); _ = hog.Wait() }()
	p := l.n.Start("mount", func(c *exec.Cmd) { c.Env = l.n.env() }, "taskset", "-c", "0", "nice", "-n", "10", l.n.bin,
		"mount", l.release.file, mountpoint, "--dest", dest, "--linger", "10m", "--at-end", "unmount", "--peer", l.seeder())
	must(t, p.WaitLog(ctx, "state=mounted")) // to a status it may be too slow to answer
	l.n.bound(p, filepath.Join(mountpoint, "big/07.bin"), "cpu", "waited")
	_ = hog.Process.Kill()
	must(t, p.WaitLog(ctx, "state=lingering"))
	l.stop(t, p)
}
