package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is what a program took.
type usage struct {
	wall, cpu float64 // seconds
	peakKiB   int64   // of resident memory
	stdout    []byte
}

// command runs a program to its end.
func (e *env) command(name string, args ...string) (usage, error) {
	cmd := exec.CommandContext(e.ctx, name, args...)
	cmd.Env = clean(os.Environ())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	u := usage{wall: time.Since(start).Seconds(), stdout: stdout.Bytes()}
	if err != nil {
		return u, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, lastLine(stderr.Bytes()))
	}
	u.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.peakKiB = ru.Maxrss
	}
	return u, nil
}

// clean takes out what would configure dcfs from outside.
func clean(env []string) (out []string) {
	for _, v := range env {
		if !strings.HasPrefix(v, "DCFS_") {
			out = append(out, v)
		}
	}
	return out
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// published is what dcfs publish --json says.
type published struct {
	Infohash    string `json:"infohash"`
	Files       int    `json:"files"`
	Bytes       int64  `json:"bytes"`
	PieceLength int64  `json:"piece_length"`
}

// publish makes dir the release version in the store below state, unsigned.
func (e *env) publish(dir, version, state string, more ...string) (published, usage, error) {
	args := append([]string{"publish", dir, "--as", version, "--state", state, "--json", "--quiet"}, more...)
	u, err := e.command(e.dcfs, args...)
	var p published
	if err == nil {
		err = json.Unmarshal(u.stdout, &p)
	}
	return p, u, err
}

// daemon is a program that goes on until stop.
type daemon struct {
	cmd  *exec.Cmd
	log  string // file with its stderr
	done chan struct{}
}

// start starts dcfs with args; its messages go to a file named after name.
func (e *env) start(name string, args ...string) (*daemon, error) {
	return e.startIn(nil, name, args...)
}

// startIn does it behind other words, such as those that enter a namespace.
func (e *env) startIn(words []string, name string, args ...string) (*daemon, error) {
	all := append(slices.Clip(append(words, e.dcfs)), args...)
	d := &daemon{cmd: exec.Command(all[0], all[1:]...), log: e.path(name + ".log"), done: make(chan struct{})}
	f, err := os.Create(d.log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d.cmd.Env, d.cmd.Stdout, d.cmd.Stderr = clean(os.Environ()), f, f
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process, which stop ends
		_ = d.cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

// stop ends the program, by force if it takes longer than any should.
func (d *daemon) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(20 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.done
	}
}

var errEnded = errors.New("it ended")

// until waits for ready to hold.
func (d *daemon) until(ctx context.Context, limit time.Duration, ready func() bool) error {
	deadline := time.Now().Add(limit)
	for !ready() {
		select {
		case <-d.done:
			return fmt.Errorf("%w: %s", errEnded, d.lastWords())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %s: %s", limit, d.lastWords())
		}
	}
	return nil
}

func (d *daemon) lastWords() string {
	raw, _ := os.ReadFile(d.log)
	for _, line := range strings.Split(string(raw), "\n") {
		if rest, ok := strings.CutPrefix(line, "dcfs: "); ok {
			return rest
		}
	}
	return lastLine(raw)
}

// all lists the processes of the program: a mount's parent has a child that serves.
func (d *daemon) all() []int {
	pids := []int{d.cmd.Process.Pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[0]))
	for _, list := range lists {
		raw, _ := os.ReadFile(list)
		for text := range strings.FieldsSeq(string(raw)) {
			if pid, err := strconv.Atoi(text); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// memory is a figure of /proc/PID/status in KiB, such as RssAnon, of all the
// program's processes together.
func (d *daemon) memory(field string) (sum int64) {
	for _, pid := range d.all() {
		sum += procKiB(fmt.Sprintf("/proc/%d/status", pid), field)
	}
	return sum
}

// cpu is how many seconds of processor time the program has taken.
func (d *daemon) cpu() (sum float64) {
	for _, pid := range d.all() {
		sum += cpuOf(pid)
	}
	return sum
}

func cpuOf(pid int) float64 {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100
}

func procField(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if k, v, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func procKiB(file, name string) int64 {
	v, _ := strconv.ParseInt(strings.TrimSuffix(procField(file, name), " kB"), 10, 64)
	return v
}

// service is a running origin.
type service struct {
	*daemon
	url string
}

var ready = regexp.MustCompile(`origin ready: (https?://\S+), peers at`)

// origin serves the store below state on loopback.
func (e *env) origin(state string) (*service, error) {
	return e.originIn(nil, "127.0.0.1", state)
}

// originIn serves it at another address, behind words as startIn's.
func (e *env) originIn(words []string, addr, state string, more ...string) (*service, error) {
	d, err := e.startIn(words, filepath.Base(state)+"-origin", append([]string{"origin", "--listen", addr + ":0", "--peer-listen", addr + ":0",
		"--state", state, "--run", e.path("run-origin")}, more...)...)
	if err != nil {
		return nil, err
	}
	s := &service{daemon: d}
	err = d.until(e.ctx, time.Minute, func() bool {
		raw, _ := os.ReadFile(d.log)
		if m := ready.FindSubmatch(raw); m != nil {
			s.url = string(m[1])
		}
		return s.url != ""
	})
	if err != nil {
		d.stop()
		return nil, err
	}
	return s, nil
}

// mount mounts a release and returns once its listing is there, with the
// seconds that took. The payload hardly comes: what is measured is the tree.
func (e *env) mount(word string, more ...string) (d *daemon, at string, seconds float64, err error) {
	return e.mountIn(nil, "127.0.0.1", word, more...)
}

// fresh is a path of that name which is not there. What is there is moved aside and
// deleted with all else: for some seconds after many files were deleted, ext4 makes new
// ones at a tenth of its speed, since it does not use their inodes again so soon.
func (e *env) fresh(name string) (string, error) {
	at := e.path(name)
	aside, err := os.MkdirTemp(e.dir, "old-")
	if err != nil {
		return "", err
	}
	if err := os.Rename(at, filepath.Join(aside, name)); err != nil && !os.IsNotExist(err) {
		return "", err
	}
	return at, nil
}

// mountIn mounts it with another address, behind words as startIn's.
func (e *env) mountIn(words []string, addr, word string, more ...string) (d *daemon, at string, seconds float64, err error) {
	at = e.path("mount")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return nil, "", 0, err
	}
	state, err := e.fresh("host")
	if err != nil {
		return nil, "", 0, err
	}
	args := append([]string{"mount", word, at, "--state", state, "--run", e.path("run-host"), "--insecure-unsigned",
		"--at-end", "unmount", "--peer-listen", addr + ":0"}, more...)
	start := time.Now()
	if d, err = e.startIn(words, "mount", args...); err != nil {
		return nil, "", 0, err
	}
	err = d.until(e.ctx, 2*time.Minute, func() bool {
		entries, err := os.ReadDir(at)
		return err == nil && len(entries) > 0
	})
	if err != nil {
		d.stop()
		return nil, "", 0, err
	}
	return d, at, time.Since(start).Seconds(), nil
}
