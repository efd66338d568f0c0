package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	endGrace  = 20 * time.Second // to end in order, before a kill
	callGrace = 5 * time.Second
	maxLine   = 64 << 10
	tailBytes = 2 << 10
)

// process is a running child. done is closed when it has ended.
type process struct {
	name, log string
	cmd       *exec.Cmd
	done      chan struct{}
	err       error // how it ended; after done
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// command is a call of this program. Children are in a process group of their
// own: a Ctrl-C is for the demo, which then ends them in order.
func (s *story) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.Exe, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Settings of the machine, such as a DCFS_ORIGIN, are not the demo's.
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "DCFS_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "DCFS_CONFIG="+s.path(configFile))
	return cmd
}

// start runs a child in the background, its stderr in a log file.
func (s *story) start(name string, stdout io.Writer, args ...string) (*process, error) {
	log := s.path(name + ".log")
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &process{name: name, log: log, cmd: s.command(args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = stdout, f
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s.procs = append(s.procs, p)
	go func() { // ends with the child, which cleanUp makes sure of
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// startReady starts a child and waits for its first line, JSON, on stdout.
func (s *story) startReady(ctx context.Context, name string, ready any, args ...string) (*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p, err := s.start(name, w, args...)
	w.Close()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	defer context.AfterFunc(ctx, func() { r.Close() })()
	line, err := bufio.NewReaderSize(r, maxLine).ReadSlice('\n')
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s is not ready: %w", name, context.Cause(ctx))
	}
	if err != nil {
		<-p.done // it has closed its stdout
		return nil, p.failure()
	}
	if err := json.Unmarshal(line, ready); err != nil {
		return nil, fmt.Errorf("%s says %q: %w", name, line, err)
	}
	return p, nil
}

// call runs a child to its end and reads its JSON result, if one is wanted.
func (s *story) call(ctx context.Context, result any, args ...string) ([]byte, error) {
	base := s.command(args...)
	cmd := exec.CommandContext(ctx, base.Path, args...)
	cmd.Env, cmd.SysProcAttr = base.Env, base.SysProcAttr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = callGrace
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("dcfs %s: %w\n%s%s", args[0], err, stdout.Bytes(), stderr.Bytes())
	}
	if result != nil {
		if err := json.Unmarshal(stdout.Bytes(), result); err != nil {
			return nil, fmt.Errorf("dcfs %s printed %q: %w", args[0], stdout.String(), err)
		}
	}
	return stdout.Bytes(), nil
}

// failure is why a process ended too early, with the end of its log.
func (p *process) failure() error {
	raw, _ := os.ReadFile(p.log)
	raw = raw[max(0, len(raw)-tailBytes):]
	why := p.err
	if why == nil {
		why = errors.New("it ended too early")
	}
	return fmt.Errorf("%s: %w; the end of %s:\n%s", p.name, why, p.log, bytes.TrimSpace(raw))
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// end asks a process to end and kills it when it does not.
func (p *process) end() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	late := time.NewTimer(endGrace)
	defer late.Stop()
	select {
	case <-p.done:
	case <-late.C:
		p.kill()
	}
}
