package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// survivor is a mount whose serving process is killed again and again.
type survivor struct {
	t    *testing.T
	n    *node
	p    *lab.Process // the parent
	mnt  string
	mu   sync.Mutex
	bad  []string
	slow map[string]time.Duration // by reader, the longest that a round took
}

// server is the process id of the one that serves, 0 while there is none.
func (s *survivor) server() int {
	for _, pid := range children(s.p.PID()) {
		return pid
	}
	return 0
}

// children lists the processes that a process has made, by all its threads.
func children(pid int) (all []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		b, _ := os.ReadFile(list) // the thread may have ended
		for pid := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(pid); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}

// serving says whether pid has come so far that it answers: it is the one that
// holds the mount's device.
func serving(pid int) bool {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == "/dev/fuse" {
			return true
		}
	}
	return false
}

// kills kills the serving process n times, each time when a new one serves.
// Every eighth time the whole program is renewed instead, as for an upgrade.
func (s *survivor) kills(n int) {
	s.t.Helper()
	last := 0
	for i := range n {
		ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
		err := lab.Poll(ctx, func() (bool, error) {
			pid := s.server()
			if pid == 0 || pid == last || !serving(pid) {
				return false, nil
			}
			last = pid
			if i%8 == 7 {
				return true, s.p.Signal(syscall.SIGUSR2)
			}
			return true, syscall.Kill(pid, syscall.SIGKILL)
		})
		cancel()
		if err != nil {
			s.t.Fatalf("nobody took over: %v\n%s", err, s.p.Tail(30))
		}
		time.Sleep(time.Duration(600+rand.IntN(300)) * time.Millisecond)
	}
}

// reader runs a shell command on the mount again and again, which has to print
// the same each time. run makes the process.
func (s *survivor) reader(stop <-chan struct{}, want, command string, run func(context.Context, ...string) *exec.Cmd) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		start := time.Now()
		cmd := run(context.Background(), "sh", "-c", command)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		s.mu.Lock()
		s.slow[command] = max(s.slow[command], time.Since(start))
		if err != nil || string(out) != want {
			s.bad = append(s.bad, fmt.Sprintf("%s: %v, %.200q, want %.200q: %.300s", command, err, out, want, &stderr))
		}
		s.mu.Unlock()
	}
}

// useCommands list, read, run and map what is mounted.
var useCommands = []string{
	"find . | LC_ALL=C sort | sha256sum",
	"cat $(find . -type f | LC_ALL=C sort) | sha256sum",
	"./bin/run runs",
	"cmp big/00.bin big/00.bin && dd if=big/03.bin bs=64k skip=5 count=20 status=none | sha256sum",
}

func here(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, args[0], args[1:]...)
}

// TestSurvive kills the process that serves a mount while programs read it, map
// it and run from it, before, during and after the handover. They see nothing
// but pauses. DCFS_SOAK_KILLS sets how often.
func TestSurvive(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE, lab.Tool("rsync"))
	kills := 12
	if n, err := strconv.Atoi(os.Getenv("DCFS_SOAK_KILLS")); err == nil && n > 0 {
		kills = n
	}
	l := lab.New(t, "origin", "a")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 300, 6, 2<<20)
	tool(t, source, "cp", "/bin/echo", "bin/run")
	release := o.publish(source, "v")
	n := o.newNode(l.Host("a"))
	s := &survivor{t: t, n: n, mnt: filepath.Join(n.Mnt(), "v"), slow: map[string]time.Duration{}}
	must(t, os.Mkdir(s.mnt, 0o755))
	n.Shape(lab.Shape{Down: "12mbit"}) // so that readers meet what is not here yet
	dest := filepath.Join(n.Releases(), "v")
	s.p = n.daemon("mount", "mount", release.Version, s.mnt, "--origin", o.url(), "--dest", dest,
		"--activate", filepath.Join(n.Dir, "current"), "--linger", "10m")
	n.reach(s.p, "v", "mounted", 20*time.Second)

	stop := make(chan struct{})
	var readers sync.WaitGroup
	start := func(command string) {
		want := tool(t, source, "sh", "-c", command)
		readers.Go(func() { s.reader(stop, want, "cd "+s.mnt+" && "+command, here) })
	}
	for _, command := range useCommands {
		start(command)
	}

	watch := n.act(t, "probe", s.mnt, "bin/run")
	s.kills(kills)
	n.Shape(lab.Shape{})
	n.reach(s.p, "v", "lingering", 60*time.Second)
	s.kills(kills / 4)
	n.reach(s.p, "v", "lingering", 60*time.Second)
	close(stop)
	readers.Wait()
	for _, b := range s.bad {
		t.Error(b)
	}
	var found pauses
	must(t, json.Unmarshal([]byte(watch.end()), &found))
	if len(found.Errors) > 0 {
		t.Errorf("wrong answers: %v", found.Errors)
	}
	t.Logf("%d kills; %s; the longest rounds of the readers: %v", kills+kills/4, found.summary(), s.slow)
	equal(t, source, dest)
	equal(t, source, s.mnt)
	if got := len(n.MountsBelow(s.mnt)); got > 2 {
		t.Errorf("%d mounts on one another", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if code, err := s.p.Stop(ctx); err != nil || code != 0 {
		t.Errorf("SIGTERM: exit %d, %v\n%s", code, err, s.p.Tail(30))
	}
	must(t, n.Unmount(s.mnt)) // the copy, which the handover leaves
}
