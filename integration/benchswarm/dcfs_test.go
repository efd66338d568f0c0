package benchswarm

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dcfs/integration/lab"
)

type dcfsTool struct {
	flat bool // hosts do not know of racks
}

// environment is that of dcfs on a host: nothing of the machine's own.
func environment(h *lab.Host) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "DCFS_") })
		c.Env = append(env, "DCFS_TRADE="+strconv.FormatBool(*trades), "DCFS_STATE="+h.State(), "DCFS_RUN="+h.Run(), "DCFS_TRUSTED="+filepath.Join(h.Dir, "trusted.d"))
	}
}

// publish makes the tree a release of the origin, and a torrent file of it.
func publish(b *testing.B, w *work) (torrent string) {
	torrent = filepath.Join(w.origin.Dir, "tree.torrent")
	args := append([]string{"publish", w.tree, "--as", "bench", "--quiet", "--out", torrent}, strings.Fields(*extra)...)
	cmd := w.origin.Command(b.Context(), w.dcfs, args...)
	environment(w.origin)(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("publish: %v: %s", err, out)
	}
	return torrent
}

func (d dcfsTool) run(b *testing.B, w *work) outcome {
	publish(b, w)
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	origin := w.origin.Start("origin", environment(w.origin), w.dcfs, "origin")
	if err := origin.WaitLog(ctx, "origin ready"); err != nil {
		b.Fatal(err)
	}
	if err := origin.WaitLog(ctx, "seeding"); err != nil {
		b.Fatal(err)
	}
	before := w.shape()
	start := time.Now()
	procs := make([]*lab.Process, len(w.hosts))
	for i, h := range w.hosts {
		args := []string{"fetch", "bench", filepath.Join(h.Releases(), "bench"),
			"--origin", "http://" + w.origin.Addr + ":7070", "--insecure-unsigned", "--linger", "1h"}
		if w.setup.racks > 0 && !d.flat {
			args = append(args, "--rack", fmt.Sprintf("r%d", i%w.setup.racks))
		}
		procs[i] = h.Start("fetch", environment(h), w.dcfs, args...)
	}
	watch := newWatch(w.lab, w.hosts, procs, start)
	seconds := waitAll(b, start, w.hosts, watch.done)
	watch.stop()
	out := outcome{racks: w.crossed(), fall: watch.fall(seconds), use: watch.use(w.mbit, slices.Max(seconds))}
	for i, h := range w.all() {
		p := origin
		if i > 0 {
			p = procs[i-1]
		}
		got := host{link: since(h, before[i])}
		got.cpu, got.rssMiB = usage(p.PID())
		if i == 0 {
			out.origin = got
			continue
		}
		st := watch.last(h)
		got.seconds, got.fetched, out.bytes = seconds[i-1], st.BytesFetched, st.Bytes
		out.hosts = append(out.hosts, got)
	}
	if *verb {
		fmt.Println(origin.Tail(40), procs[0].Tail(40))
	}
	return out
}

// status is what is read of a host's status.
type status struct {
	State        string    `json:"state"`
	StateSince   time.Time `json:"state_since"`
	Bytes        int64     `json:"bytes"`
	BytesHave    int64     `json:"bytes_have"`
	BytesFetched int64     `json:"bytes_fetched"`
	Peers        int       `json:"peers"`
}

// watch asks all hosts how they are, every half a second, because the asking
// takes time from them, and reads the counters of their links.
type watch struct {
	start time.Time
	cease chan struct{}
	ended sync.WaitGroup

	mu    sync.Mutex
	seen  map[*lab.Host][]sample
	links []reading
}

type sample struct {
	status
	at float64
}

func newWatch(l *lab.Lab, hosts []*lab.Host, procs []*lab.Process, start time.Time) *watch {
	w := &watch{start: start, cease: make(chan struct{}), seen: make(map[*lab.Host][]sample)}
	w.ended.Go(func() { w.readLinks(l) })
	for i, h := range hosts {
		w.ended.Go(func() {
			for {
				select {
				case <-w.cease:
					return
				case <-time.After(500 * time.Millisecond):
				}
				if st, err := ask(h, procs[i].PID()); err == nil {
					w.mu.Lock()
					w.seen[h] = append(w.seen[h], sample{st, time.Since(start).Seconds()})
					w.mu.Unlock()
				}
			}
		})
	}
	return w
}

func (w *watch) stop() {
	close(w.cease)
	w.ended.Wait()
}

func (w *watch) last(h *lab.Host) status {
	w.mu.Lock()
	defer w.mu.Unlock()
	if all := w.seen[h]; len(all) > 0 {
		return all[len(all)-1].status
	}
	return status{}
}

// done reports when the copy stood under its name.
func (w *watch) done(h *lab.Host) (time.Time, bool) {
	st := w.last(h)
	return st.StateSince, st.State == "materialised" || st.State == "lingering"
}

// ask reads a process's status from its socket, whose path may be too long for
// an address.
func ask(h *lab.Host, pid int) (st status, err error) {
	dir, err := os.Open(h.Run())
	if err != nil {
		return st, err
	}
	defer dir.Close()
	path := fmt.Sprintf("/proc/self/fd/%d/%d.sock", dir.Fd(), pid)
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	c := http.Client{Transport: tr, Timeout: 5 * time.Second}
	res, err := c.Get("http://dcfs/v1/status")
	if err != nil {
		return st, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(raw, &st)
	}
	return st, err
}
