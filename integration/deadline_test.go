package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// readTimeout is that of the mounts here, in seconds.
const readTimeout = 2

// deadlineLab is a life lab whose host gets nothing but from a peer that is bad
// in some way until it is mended.
type deadlineLab struct {
	*lifeLab
	mountpoint string
	proc       *lab.Process
}

func newDeadlineLab(t *testing.T) *lifeLab {
	t.Helper()
	lab.Require(t, lab.Root, lab.FUSE, lab.Tool("rsync"))
	l := &lifeLab{Lab: lab.New(t, "origin", "peer", "bad", "host")}
	l.o = newOrigin(t, l.Host("origin"))
	l.source = sampleTree(t, 20, lateFiles, 300<<10)
	l.release = l.o.publish(l.source, "app/late")
	l.n = l.o.newNode(l.Host("host"))
	return l
}

// mount starts a mount that knows one peer only.
func (l *lifeLab) mount(t *testing.T, label, peer string) *deadlineLab {
	t.Helper()
	d := &deadlineLab{lifeLab: l, mountpoint: filepath.Join(l.n.Mnt(), label)}
	must(t, os.MkdirAll(d.mountpoint, 0o755))
	// The torrent names a tracker; without it nobody else is found.
	file := filepath.Join(t.TempDir(), "alone.torrent")
	torrent := takeApart(t, l.release.file)
	must(t, os.WriteFile(file, torrent.encode("http://"+l.n.Addr+":1/announce"), 0o644))
	d.proc = l.n.daemon(label, "mount", file, d.mountpoint, "--dest", filepath.Join(l.n.Releases(), label),
		"--linger", "10m", "--at-end", "unmount", "--wait", "10m", "--peer", peer,
		"--read-timeout", fmt.Sprintf("%ds", readTimeout))
	t.Cleanup(d.proc.Kill) // nothing happens to one that ended
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	must(t, d.proc.WaitLog(ctx, "state=mounted"))
	return d
}

func (d *deadlineLab) end(t *testing.T) {
	t.Helper()
	d.stop(t, d.proc)
	must(t, os.RemoveAll(filepath.Join(d.n.Releases(), "."+filepath.Base(d.mountpoint)+".dcfs")))
}

// page reads 4 KiB of a file at an offset, once, and says how it ended.
func (d *deadlineLab) page(t *testing.T, name string, off int) (got []byte, errText string, took time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := d.n.Command(ctx, "dd", "if="+filepath.Join(d.mountpoint, name), "bs=4096", "count=1",
		fmt.Sprintf("skip=%d", off/4096), "status=none")
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	began := time.Now()
	_ = cmd.Run() // the message says it
	if ctx.Err() != nil {
		t.Fatalf("a read of %s does not end; %s", name, d.proc.Tail(40))
	}
	return out.Bytes(), strings.TrimSpace(stderr.String()), time.Since(began)
}

// failedLines are the log lines that name a file's read.
func (d *deadlineLab) failedLines(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(d.proc.Stderr)
	must(t, err)
	var found []string
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "read failed") && strings.Contains(line, "file="+name+" ") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// fails has a read fail at its deadline, with a line in the log; it returns the line.
func (d *deadlineLab) fails(t *testing.T, name string, off int, asked string) {
	t.Helper()
	got, text, took := d.page(t, name, off)
	if len(got) != 0 || !strings.HasSuffix(text, "Input/output error") {
		t.Errorf("%s: %d bytes, %q; want EIO", name, len(got), text)
	}
	if took < readTimeout*time.Second || took > 2*readTimeout*time.Second-time.Second/2 {
		t.Errorf("%s: the read ended after %s, want %d s", name, took, readTimeout)
	}
	lines := d.failedLines(t, name)
	if len(lines) != 1 {
		t.Fatalf("%s: want one line in the log, got %d:\n%s\n%s", name, len(lines), strings.Join(lines, "\n"), d.proc.Tail(30))
	}
	t.Logf("after %s: %s", took.Round(time.Millisecond), lines[0])
	for _, part := range []string{`offset=\d+`, `piece=\d+`, `since=`, "asked=.*" + asked, "did not arrive in time"} {
		if !regexp.MustCompile(part).MatchString(lines[0]) {
			t.Errorf("the log line does not say %s: %s", part, lines[0])
		}
	}
}

// recovers has the same read succeed once the trouble is over.
func (d *deadlineLab) recovers(t *testing.T, name string, off int) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(d.source, name))
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// A peer that was silent may be connected anew first.
	err = lab.Poll(ctx, func() (bool, error) {
		got, text, _ := d.page(t, name, off)
		if len(got) > 0 && !bytes.Equal(got, want[off:off+4096]) {
			return false, fmt.Errorf("%s: wrong bytes", name)
		}
		if len(got) == 0 && !strings.HasSuffix(text, "Input/output error") {
			return false, fmt.Errorf("%s: %s", name, text)
		}
		return len(got) > 0, nil
	})
	if err != nil {
		t.Errorf("after recovery: %v\n%s", err, d.proc.Tail(40))
	}
}

const (
	lateFiles  = 150
	lateFile   = "big/50.bin"
	lateOffset = 200 << 10
)

// TestReadDeadlines: whatever keeps the bytes away, a read ends at its deadline
// with EIO and one log line, and succeeds later.
func TestReadDeadlines(t *testing.T) {
	l := newDeadlineLab(t)
	t.Run("no peers", func(t *testing.T) {
		l.n.Cut()
		d := l.mount(t, "none", l.o.Addr+":"+peerPort)
		d.fails(t, lateFile, lateOffset, "nobody was asked: ")
		l.n.Heal()
		d.recovers(t, lateFile, lateOffset)
		d.end(t)
	})
	t.Run("silent", func(t *testing.T) {
		p := newBadProxy(t, l.Host("bad"), l.o.Addr+":"+peerPort, 0)
		d := l.mount(t, "silent", p.addr)
		d.fails(t, lateFile, lateOffset, "nobody was asked: ")
		p.mend()
		d.recovers(t, lateFile, lateOffset)
		d.end(t)
	})
	t.Run("1 B/s", func(t *testing.T) {
		p := newBadProxy(t, l.Host("bad"), l.o.Addr+":"+peerPort, 20000)
		d := l.mount(t, "trickle", p.addr)
		d.fails(t, lateFile, lateOffset, regexp.QuoteMeta(p.addr)+`( has \d+ other requests|) since \d\d:`)
		p.mend()
		d.recovers(t, lateFile, lateOffset)
		d.end(t)
	})
	t.Run("frozen", l.frozen)
}

// frozen stops a peer that has everything with a signal, in the middle of its
// work. A hundred readers wait for what is not here; one reads what is, and
// never waits.
func (l *lifeLab) frozen(t *testing.T) {
	peer := l.o.newNode(l.Host("peer"))
	addr := peer.Addr + ":7072"
	seed := peer.daemon("seed", "fetch", l.release.file, filepath.Join(peer.Releases(), "late"), "--linger", "10m", "--peer-listen", addr)
	peer.reach(seed, l.release.Version, "lingering", time.Minute)
	l.n.Shape(lab.Shape{Down: "4mbit"}) // most of it does not come before the freeze
	l.o.Cut()                           // the peer would name it as another peer
	defer l.o.Heal()
	d := l.mount(t, "frozen", addr)
	d.recovers(t, "big/00.bin", 0)
	here := filepath.Join(d.mountpoint, "big/00.bin")
	l.onHost(t, time.Minute, "cat", here)
	must(t, seed.Signal(syscall.SIGSTOP))
	l.n.Shape(lab.Shape{})
	missing := d.missing(t)
	asked := missing[100]
	d.fails(t, asked, lateOffset, regexp.QuoteMeta(addr)+`( has \d+ other requests|) since \d\d:`)
	readers := d.hundred(t, missing[:100])
	reads := 0
	for ; reads < 20; reads++ {
		// Out of the kernel's cache, so that the process has to be asked.
		l.onHost(t, time.Minute, "dd", "if="+here, "iflag=nocache", "count=0", "status=none")
		if got := l.onHost(t, time.Minute, "dd", "if="+here, "bs=300k", "status=none"); len(got) != 300<<10 {
			t.Fatalf("read %d bytes", len(got))
		}
		if ended := readers.ended.Load(); ended > 0 {
			break
		}
	}
	if reads < 20 {
		t.Errorf("a reader of what is here was done with %d of 20 reads when the first of those that wait had ended", reads)
	}
	readers.done.Wait()
	if got := readers.failed.Load(); got != 100 {
		t.Errorf("%d of 100 readers failed at their deadline", got)
	}
	must(t, seed.Signal(syscall.SIGCONT))
	d.recovers(t, asked, lateOffset)
	d.recovers(t, missing[50], lateOffset)
	d.end(t)
	l.stop(t, seed)
}

// missing are the files of which nothing is here, once nothing more comes.
func (d *deadlineLab) missing(t *testing.T) (names []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	last, since := int64(-1), time.Now()
	must(t, lab.Poll(ctx, func() (bool, error) {
		if have := d.n.status(d.release.Version).BytesHave; have != last {
			last, since = have, time.Now()
		}
		return time.Since(since) > time.Second, nil
	}))
	for i := range lateFiles {
		name := fmt.Sprintf("big/%02d.bin", i)
		st, err := os.Stat(filepath.Join(d.mountpoint, name))
		must(t, err)
		if st.Sys().(*syscall.Stat_t).Blocks <= 8 { // never none, see fs
			names = append(names, name)
		}
	}
	if len(names) < 101 {
		t.Fatalf("only %d of %d files are not here", len(names), lateFiles)
	}
	return names
}

// crowd are readers that wait.
type crowd struct {
	done          sync.WaitGroup
	ended, failed atomic.Int64
}

// hundred starts a hundred readers of files that are not here, and returns when
// the process says that readers wait.
func (d *deadlineLab) hundred(t *testing.T, names []string) *crowd {
	t.Helper()
	c := &crowd{}
	for _, name := range names {
		c.done.Go(func() {
			_, text, _ := d.page(t, name, lateOffset)
			if strings.HasSuffix(text, "Input/output error") {
				c.failed.Add(1)
			}
			c.ended.Add(1)
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := lab.Poll(ctx, func() (bool, error) { return len(d.n.status(d.release.Version).Waiting) > 0, nil }); err != nil {
		t.Errorf("nobody waits: %v", err)
	}
	return c
}

// badProxy passes connections on to a peer, but of what the peer says only the
// first bytes at once, and then one byte each second, until it is mended.
type badProxy struct {
	addr   string
	mended chan struct{}
	once   sync.Once
}

func newBadProxy(t *testing.T, h *lab.Host, target string, first int64) *badProxy {
	t.Helper()
	ln, err := h.Listen("tcp", h.Addr+":0")
	must(t, err)
	p := &badProxy{addr: ln.Addr().String(), mended: make(chan struct{})}
	var tasks sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); ln.Close(); p.mend(); tasks.Wait() })
	tasks.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() { p.pass(ctx, h, c, target, first) })
		}
	})
	return p
}

func (p *badProxy) mend() { p.once.Do(func() { close(p.mended) }) }

func (p *badProxy) pass(ctx context.Context, h *lab.Host, c net.Conn, target string, first int64) {
	defer c.Close()
	out, err := h.Dial(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer out.Close()
	stop := context.AfterFunc(ctx, func() { c.Close(); out.Close() })
	defer stop()
	select {
	case <-p.mended:
		first = 1 << 62
	default:
	}
	if first == 0 { // accepts, and not a word either way
		select {
		case <-p.mended: // whoever waited has hung up; the next one is served
		case <-ctx.Done():
		}
		return
	}
	go func() { // ends with the connection
		defer c.Close()
		_, _ = io.Copy(out, c)
		out.Close()
	}()
	if _, err := io.CopyN(c, out, first); err != nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := io.CopyN(c, out, 1); err != nil {
				return
			}
		case <-p.mended:
			_, _ = io.Copy(c, out)
			return
		case <-ctx.Done():
			return
		}
	}
}
