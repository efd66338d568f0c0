package integration

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/integration/lab"
)

// maxRSS is what no input may take of memory, in bytes.
const maxRSS = 300 << 20

// TestHostileTrees has each tree signed by the key that the node trusts: no
// publisher can make a node write outside of its directory.
func TestHostileTrees(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE, lab.Tool("minisign"))
	l := lab.New(t, "origin", "a")
	o := newOrigin(t, l.Host("origin"))
	n := o.newNode(l.Host("a"))
	seal := func(t *testing.T, f forged) string {
		s := signedTorrent{name: "v", info: f.info()}
		s = s.sign(t, o.key+".key", s.stated("v", "2026-01-01T00:00:00Z", ""))
		file := filepath.Join(t.TempDir(), "x.torrent")
		must(t, os.WriteFile(file, s.encode("http://"+n.Addr+":1/announce"), 0o644))
		return file
	}
	// The forger's own work is believed when nothing is wrong in it: nobody has
	// the content, which is another end.
	right := seal(t, flat(forgedFile("a", 5), forgedEntry{kind: 3, name: "b", target: "/etc"}))
	n.fails(69, nil, "fetch", right, filepath.Join(n.Dir, "elsewhere/x"), "--wait", "1s")
	must(t, os.RemoveAll(n.State()))
	must(t, os.RemoveAll(filepath.Join(n.Dir, "elsewhere")))
	must(t, os.MkdirAll(n.State(), 0o755))
	for name, f := range hostileTrees() {
		t.Run(name, func(t *testing.T) {
			n := *n
			n.t = t
			file := seal(t, f)
			refused(t, &n, []int{65}, nil, file, "--wait", "1s")
			if out := bounded(t, &n, 65, "verify", file, n.Dir); !strings.Contains(out, "try: ") {
				t.Errorf("it does not say what to try: %s", out)
			}
		})
	}
}

// bounded runs a command that has to end with the code, in a minute and in
// little memory, and returns what it said.
func bounded(t *testing.T, n *node, code int, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := n.Command(ctx, n.bin, args...)
	cmd.Env = n.env()
	// A child's peak starts at that of the process which made it.
	debug.FreeOSMemory()
	must(t, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		t.Fatalf("dcfs %v: %v: %s", args, err, out)
	}
	rss := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	if rss > maxRSS {
		t.Errorf("dcfs %v took %d MB", args, rss/1e6)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("dcfs %v: exit %d, want %d: %.9000s", args, got, code, out)
	}
	t.Logf("dcfs %s: exit %d, %d MB, %.300s", args[0], cmd.ProcessState.ExitCode(), rss/1e6, strings.TrimSpace(string(out)))
	return string(out)
}

// endless writes a head and then a text for ever, or until the other has
// enough.
func endless(w io.Writer, head, text string) {
	chunk := bytes.Repeat([]byte(text), 1<<16/len(text)+1)
	_, err := io.WriteString(w, head)
	for err == nil {
		_, err = w.Write(chunk)
	}
}

// TestHostileOrigin: whatever an origin answers, commands end with an error, in
// bounded memory.
func TestHostileOrigin(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE)
	l := lab.New(t, "evil", "a")
	n := newNode(t, l.Host("a"))
	var answer http.HandlerFunc
	url := evilOrigin(t, l.Host("evil"), func(w http.ResponseWriter, r *http.Request) { answer(w, r) })
	times := func(head, text string, total int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, head)
			chunk := bytes.Repeat([]byte(text), 1<<14)
			for n := 0; n < total; n += len(chunk) {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
			io.WriteString(w, "e") // to look like a torrent
		}
	}
	plain := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, s) }
	}
	for name, c := range map[string]struct {
		do   http.HandlerFunc
		code int
	}{
		"endless torrent":  {func(w http.ResponseWriter, _ *http.Request) { endless(w, "d4:info", "d1:a") }, 65},
		"endless zeros":    {func(w http.ResponseWriter, _ *http.Request) { endless(w, "", "\x00") }, 65},
		"endless error":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); endless(w, `{"error":"`, "x") }, 66},
		"endless head":     {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 8<<20)) }, 69},
		"a length of 2^62": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "4611686018427387904") }, 65},
		"60 MiB of lists":  {times("d4:info", "l", 60<<20), 65},
		"60 MiB of keys":   {times("d4:infod", "1:a", 60<<20), 65},
		"60 MiB of dicts":  {times("d4:info", "d1:a", 60<<20), 65},
		"a string of 2^63": {plain("d4:info9223372036854775808:e"), 65},
		"a string of 10^9": {plain("d4:infod4:dcfsd4:tree1000000000:xee"), 65},
		"nothing":          {plain(""), 65},
		"a web page":       {plain("<html>"), 65},
		"to another host": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://10.77.9.9/", http.StatusFound)
		}, 65},
		"in a circle": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, 69},
		"it hangs up": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				conn.Close()
			}
		}, 69},
	} {
		t.Run(name, func(t *testing.T) {
			n := *n
			n.t = t
			answer = c.do
			bounded(t, &n, c.code, "fetch", "v", filepath.Join(n.Releases(), "x"), "--origin", url, "--wait", "2s")
			refusedNothingLeft(t, &n)
		})
	}
	for name, do := range map[string]http.HandlerFunc{
		"endless list": func(w http.ResponseWriter, _ *http.Request) {
			endless(w, `{"schema":1,"releases":[`, `{"version":"v"},`)
		},
		"deep JSON":      times(`{"schema":1,"releases":`, "[", 10<<20),
		"15 MiB of list": times(`{"schema":1,"releases":[{}`, ",{}", 15<<20),
	} {
		t.Run(name, func(t *testing.T) {
			n := *n
			n.t = t
			answer = do
			bounded(t, &n, 65, "ls", "--origin", url)
		})
	}
}

func refusedNothingLeft(t *testing.T, n *node) {
	t.Helper()
	for _, dir := range []string{n.Releases(), n.State()} {
		if out := tool(t, dir, "find", ".", "-mindepth", "1", "!", "-type", "d"); out != "" {
			t.Errorf("left behind in %s: %s", dir, out)
		}
	}
}

// TestHostileSwarm: trackers and peers that mean harm neither stop a fetch from
// a good origin nor take memory; without a good one the wait ends with 69.
func TestHostileSwarm(t *testing.T) {
	lab.Require(t, lab.Root)
	l := lab.New(t, "origin", "evil", "a")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 20, 2, 8<<20)
	release := o.publish(source, "v")
	evil := l.Host("evil")
	good, err := os.ReadFile(release.file)
	must(t, err)
	peers := hostilePeers(t, evil, sha1.Sum([]byte(takeApart(t, release.file).info)))
	trackers := map[string]http.HandlerFunc{
		"endless":     func(w http.ResponseWriter, _ *http.Request) { endless(w, "d8:intervali1e5:peers", "l") },
		"nested":      func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "d5:peers"+strings.Repeat("l", 1<<20)) },
		"10^9 bytes":  func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "d5:peers1000000000:xxxxxx") },
		"many":        manyPeers,
		"interval -1": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "d8:intervali-1e5:peers0:e") },
		"interval max": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "d8:intervali9223372036854775807e5:peers0:e")
		},
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	}
	n := o.newNode(l.Host("a"))
	for name, announce := range trackers {
		t.Run(name, func(t *testing.T) {
			n := *n
			n.t = t
			url := evilOrigin(t, evil, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, ".torrent") {
					w.Write(takeApart(t, release.file).encode("http://" + r.Host + "/announce"))
					return
				}
				announce(w, r)
			})
			dest := filepath.Join(n.Releases(), "x")
			bounded(t, &n, 69, "fetch", "v", dest, "--origin", url, "--wait", "2s", "--cache", "64MiB")
			must(t, os.RemoveAll(filepath.Join(n.Releases(), ".x.dcfs")))
			// With a good peer named, it comes all the same.
			bounded(t, &n, 0, "fetch", "v", dest, "--origin", url, "--peer", o.Addr+":"+peerPort, "--linger", "0s", "--cache", "64MiB")
			equal(t, source, dest)
			must(t, os.RemoveAll(dest))
		})
	}
	t.Run("peers", func(t *testing.T) {
		n := *n
		n.t = t
		file := filepath.Join(t.TempDir(), "v.torrent")
		must(t, os.WriteFile(file, good, 0o644))
		args := []string{"fetch", file, filepath.Join(n.Releases(), "y"), "--linger", "0s", "--cache", "64MiB"}
		for _, p := range peers {
			args = append(args, "--peer", p)
		}
		bounded(t, &n, 0, args...)
		equal(t, source, filepath.Join(n.Releases(), "y"))
		// Asked for the metadata (BEP 9), they give nothing that is believed.
		args[1] = fmt.Sprintf("magnet:?xt=urn:btih:%x", sha1.Sum([]byte(takeApart(t, release.file).info)))
		args[2] = filepath.Join(n.Releases(), "z")
		bounded(t, &n, 69, append(args, "--wait", "4s")...)
		if _, err := os.Lstat(args[2]); err == nil {
			t.Error("a copy of what nobody has")
		}
	})
}

// TestSymlinkSwaps: somebody on this host, as mighty as root, swaps directories
// and files of the stage for symlinks while a release is materialised. The
// fetch may fail; what the links lead to stays as it was.
func TestSymlinkSwaps(t *testing.T) {
	lab.Require(t, lab.Root)
	l := lab.New(t, "origin", "a")
	o := newOrigin(t, l.Host("origin"))
	release := o.publish(sampleTree(t, 300, 2, 4<<20), "v")
	n := o.newNode(l.Host("a"))
	victim := filepath.Join(t.TempDir(), "victim")
	tool(t, "/", "cp", "-a", sampleTree(t, 20, 0, 0), victim)
	for i := range 7 { // directories with the names of the release's
		must(t, os.MkdirAll(filepath.Join(victim, fmt.Sprintf("%02d", i)), 0o755))
	}
	listing := func() string {
		return tool(t, victim, "find", ".", "-printf", `%P %y %m %U:%G %T@ %C@ %s %l\n`) +
			tool(t, victim, "find", ".", "-type", "f", "-exec", "sha256sum", "{}", "+")
	}
	before := listing()
	swaps, failed := 0, 0
	for round := range 12 {
		dest := filepath.Join(n.Releases(), fmt.Sprintf("r%d", round))
		stage := filepath.Join(n.Releases(), fmt.Sprintf(".r%d.dcfs", round))
		stop, done := make(chan struct{}), make(chan int)
		go func() { done <- swapForLinks(stop, stage, dest, victim, round) }()
		r := n.dcfs("fetch", release.file, dest, "--linger", "0s", "--wait", "5s", "--disk-patience", "1s")
		close(stop)
		swaps += <-done
		if r.code != 0 {
			failed++
			if !strings.Contains(r.stderr, "dcfs: ") {
				t.Errorf("round %d does not say what failed: %v", round, r)
			}
		}
		if after := listing(); after != before {
			t.Fatalf("round %d: what the links lead to changed:\n%s\n%s\n%v", round, before, after, r)
		}
		must(t, os.RemoveAll(stage))
		must(t, os.RemoveAll(dest))
	}
	t.Logf("%d swaps in 12 fetches, of which %d failed", swaps, failed)
	if swaps == 0 {
		t.Error("nothing was ever swapped: the test shows nothing")
	}
}

// swapForLinks swaps paths of a stage for links to victim, again and again,
// and returns how often it did.
func swapForLinks(stop chan struct{}, stage, dest, victim string, round int) (swaps int) {
	targets := []string{"tree/lib/00", "tree/lib", "tree/big", "tree/lib/01/f001", "tree/void", "tree", "have", "", "tree/secret"}
	for i := round; ; i++ {
		if round%2 == 1 && swaps == 0 { // start when the links are made: Finish is at work
			if _, err := os.Lstat(filepath.Join(stage, "tree/lib/tool")); err != nil && i < 1e8 {
				select {
				case <-stop:
					return swaps
				default:
					continue
				}
			}
		}
		select {
		case <-stop:
			return swaps
		default:
		}
		aside := fmt.Sprintf("%s.aside%d", stage, i%3)
		if swapForLink(filepath.Join(stage, targets[i%len(targets)]), aside, victim, i%4 != 0) {
			swaps++
		}
		if i%16 == 0 {
			os.Symlink(victim, dest)
			os.Remove(dest)
		}
		os.RemoveAll(aside)
	}
}

// swapForLink swaps one path, and often back a moment later. It never follows a
// link itself: some of its own are still about.
func swapForLink(path, aside, victim string, back bool) bool {
	dir, err := unix.Openat2(unix.AT_FDCWD, filepath.Dir(path),
		&unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	base := filepath.Base(path)
	if unix.Renameat(dir, base, unix.AT_FDCWD, aside) != nil {
		return false
	}
	swapped := unix.Symlinkat(victim, dir, base) == nil
	if back {
		unix.Unlinkat(dir, base, 0)
		unix.Renameat(unix.AT_FDCWD, aside, dir, base)
	}
	return swapped
}
