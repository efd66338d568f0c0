package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Process is a program that runs in a host for part of a test. Its output goes
// to files, which are shown when the test fails. It is always reaped. Its
// methods are safe for concurrent use.
type Process struct {
	Label  string // for messages and file names
	Stdout string // path of the file
	Stderr string // path of the file

	cmd    *exec.Cmd
	cancel context.CancelFunc
	done   chan struct{} // closed when reaped
	err    error         // of Wait; read after done
}

// grace is how long a process may take to end after SIGTERM when its test ends.
const grace = 20 * time.Second

// Start runs cmd, made by Host.Command, until it ends, the test ends, or Kill.
// At the end of the test a process that still runs gets SIGTERM and fails the
// test unless it ends soon.
func (h *Host) Start(label string, prepare func(*exec.Cmd), name string, args ...string) *Process {
	h.lab.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := h.Command(ctx, name, args...)
	p := &Process{
		Label:  h.Name + "/" + label,
		Stdout: filepath.Join(h.Dir, label+".out"),
		Stderr: filepath.Join(h.Dir, label+".err"),
		cmd:    cmd, cancel: cancel, done: make(chan struct{}),
	}
	for _, o := range []struct {
		path string
		set  func(*os.File)
	}{
		{p.Stdout, func(f *os.File) { cmd.Stdout = f }},
		{p.Stderr, func(f *os.File) { cmd.Stderr = f }},
	} {
		f, err := os.OpenFile(o.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			h.lab.t.Fatal(err)
		}
		defer f.Close()
		o.set(f)
	}
	if prepare != nil {
		prepare(cmd)
	}
	if err := cmd.Start(); err != nil {
		cancel()
		h.lab.t.Fatalf("start %s: %v", p.Label, err)
	}
	go func() {
		p.err = cmd.Wait()
		cancel()
		close(p.done)
	}()
	h.lab.mu.Lock()
	h.lab.procs = append(h.lab.procs, p)
	h.lab.mu.Unlock()
	return p
}

// PID is the process id of the program.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and is reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running says whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits for the process to end by itself and returns its exit code, or -1
// when a signal ended it. The error is that of ctx when it ends first.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%s still runs: %w", p.Label, ctx.Err())
	}
}

// Signal sends sig to the program; a program that has ended is no error.
func (p *Process) Signal(sig os.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Kill ends the program at once, by its process id, and waits until it is
// reaped.
func (p *Process) Kill() {
	p.cancel()
	<-p.done
}

// Stop sends SIGTERM and returns the exit code; it kills the program and
// returns an error when ctx ends first.
func (p *Process) Stop(ctx context.Context) (int, error) {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	code, err := p.Wait(ctx)
	if err != nil {
		p.Kill()
		return 0, fmt.Errorf("after SIGTERM: %w", err)
	}
	return code, nil
}

// WaitLog waits until the output holds text. It fails when the process ends or
// ctx ends first.
func (p *Process) WaitLog(ctx context.Context, text string) error {
	return Poll(ctx, func() (bool, error) {
		ended := !p.Running() // before the read: what it wrote last counts
		for _, path := range []string{p.Stdout, p.Stderr} {
			b, err := os.ReadFile(path)
			if err != nil {
				return false, err
			}
			if bytes.Contains(b, []byte(text)) {
				return true, nil
			}
		}
		if ended {
			return false, fmt.Errorf("%s ended (%v) before it said %q", p.Label, p.err, text)
		}
		return false, nil
	})
}

// Tail returns the last lines of both outputs, for a message.
func (p *Process) Tail(lines int) string {
	var b strings.Builder
	for _, path := range []string{p.Stdout, p.Stderr} {
		text, err := os.ReadFile(path)
		if err != nil || len(text) == 0 {
			continue
		}
		all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
		fmt.Fprintf(&b, "--- %s %s (last %d of %d lines)\n%s\n", p.Label, filepath.Ext(path),
			min(lines, len(all)), len(all), strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
	return b.String()
}

// Poll calls f about twenty times a second until it is done or fails, or ctx
// ends.
func Poll(ctx context.Context, f func() (done bool, err error)) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := f()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
