package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxAnswer = 4 << 20 // bytes of one status; the lists in it are bounded
	maxAsked  = 64      // sockets asked at the same time
)

// ErrGone is the answer of a socket whose process has ended.
var ErrGone = errors.New("process is gone")

// Collect asks every process that has a socket in runDir, all at the same
// time and each for at most timeout. It returns the answers by process id, and
// an error for each process that did not answer. Sockets of dead processes are
// removed. A directory that is not there holds no process.
func Collect(ctx context.Context, runDir string, timeout time.Duration) ([]Status, []error) {
	all, dead, errs := Look(ctx, runDir, timeout)
	for _, path := range dead {
		os.Remove(path)
	}
	return all, errs
}

// Look is Collect without its effect: it returns the sockets of dead processes,
// by path, and leaves them.
func Look(ctx context.Context, runDir string, timeout time.Duration) (all []Status, dead []string, errs []error) {
	dir, err := os.Open(runDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, []error{fmt.Errorf("run directory: %w", err)}
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, nil, []error{fmt.Errorf("run directory: %w", err)}
	}
	names := socketNames(entries)
	answers, failures := make([]*Status, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxAsked)
	for i, name := range names {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			answers[i], failures[i] = ask(ctx, dir, name, timeout)
		})
	}
	wg.Wait()
	for i, err := range failures {
		if errors.Is(err, syscall.ECONNREFUSED) {
			dead = append(dead, filepath.Join(runDir, names[i]))
		}
	}
	all, errs = sift(answers, failures)
	return all, dead, errs
}

func socketNames(entries []os.DirEntry) (names []string) {
	for _, e := range entries {
		if e.Type() == os.ModeSocket && strings.HasSuffix(e.Name(), ".sock") {
			names = append(names, e.Name())
		}
	}
	return names
}

func sift(answers []*Status, failures []error) (all []Status, errs []error) {
	for i, s := range answers {
		switch {
		case s != nil:
			all = append(all, *s)
		case !errors.Is(failures[i], ErrGone):
			errs = append(errs, failures[i])
		}
	}
	slices.SortFunc(all, func(a, b Status) int { return a.PID - b.PID })
	return all, errs
}

// Ask asks the process behind one socket. It returns an error that wraps
// ErrGone when there is none, and then removes the socket.
func Ask(ctx context.Context, path string, timeout time.Duration) (Status, error) {
	var s Status
	err := askAt(ctx, path, statusPath, timeout, &s)
	if err == nil {
		err = checkSchema(s)
	}
	if err != nil {
		return Status{}, err
	}
	return s, nil
}

// askAt puts one question to the process behind the socket at path.
func askAt(ctx context.Context, path, question string, timeout time.Duration, answer any) error {
	dir, err := os.Open(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, ErrGone)
	}
	if err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	defer dir.Close()
	err = pose(ctx, dir, filepath.Base(path), question, timeout, answer)
	if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(short(dir, filepath.Base(path)))
	}
	return err
}

func ask(ctx context.Context, dir *os.File, name string, timeout time.Duration) (*Status, error) {
	var s Status
	err := pose(ctx, dir, name, statusPath, timeout, &s)
	if err == nil {
		err = checkSchema(s)
	}
	if err != nil {
		return nil, err
	}
	return &s, nil
}

func checkSchema(s Status) error {
	if s.Schema != Schema {
		return fmt.Errorf("process %d answers in schema %d, this dcfs reads %d", s.PID, s.Schema, Schema)
	}
	return nil
}

func pose(ctx context.Context, dir *os.File, name, question string, timeout time.Duration, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	path := filepath.Join(dir.Name(), name)
	err := get(ctx, short(dir, name), question, answer)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: %w: %w", path, ErrGone, err)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s: %w", path, ErrGone)
	case errors.Is(err, context.DeadlineExceeded):
		pid := strings.TrimSuffix(name, ".sock")
		return fmt.Errorf("process %s did not answer on %s within %s: it hangs or is stopped: %w",
			pid, path, timeout, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

func get(ctx context.Context, sock, question string, answer any) error {
	var d net.Dialer
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", sock)
		},
	}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://dcfs"+question, nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(answer); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

const maxRefusal = 4 << 10 // bytes

// refusal is the error that an answer other than 200 stands for.
func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	said := strings.TrimSpace(string(text))
	for _, kind := range []error{ErrNoFile, ErrTooEarly} {
		if after, ok := strings.CutPrefix(said, kind.Error()); ok {
			return fmt.Errorf("%w%s", kind, after)
		}
	}
	return fmt.Errorf("answered %s: %.200s", resp.Status, said)
}
