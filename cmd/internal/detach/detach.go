// Package detach starts this program again in the background and follows it
// until it has come far enough: the parent's half here, the child's half in
// child.go.
//
// The child is a session of its own and holds nothing of the caller's: standard
// input and output are /dev/null, standard error is a log file, so that a
// script that reads the parent's pipes is not kept waiting for hours. It tells
// the parent of its states as JSON lines on an inherited pipe.
//
// The package must never leave a child behind that the caller believes dead,
// and never report a stage that the child did not reach.
package detach

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"dcfs/cmd/internal/control"
)

const (
	// eventsEnv tells a child that descriptor 3 is its parent's pipe. It is no
	// DCFS_* name: those are settings.
	eventsEnv = "_DCFS_DETACHED"
	eventsFD  = 3

	maxEvent = 1 << 20 // bytes of one line from the child
	tailSize = 4 << 10 // bytes of the log that are shown when it died silently
	tailRows = 15

	// grace is how long a child may take to end in order before it is killed.
	grace = 20 * time.Second
)

// event is one line on the pipe: a state, or the end.
type event struct {
	Status *control.Status `json:"status,omitempty"`
	End    *end            `json:"end,omitempty"`
}

type end struct {
	Text string `json:"text,omitempty"` // empty when all went well
	Hint string `json:"hint,omitempty"`
	Code int    `json:"code"`
}

// ChildError is a child that ended before it reached the stage.
type ChildError struct {
	text, hint string
	code       int
}

func (e *ChildError) Error() string { return e.text }

// Hint is the next thing to try.
func (e *ChildError) Hint() string { return e.hint }

// ExitCode is the child's own, or 0 when it had none (killed by a signal).
func (e *ChildError) ExitCode() int { return e.code }

// Child is the program in the background.
type Child struct {
	PID int
	Log string // path of its standard error

	cmd    *exec.Cmd
	events *os.File
}

// Start runs argv[0] with the same arguments in the background, its standard
// error appended to a new file at log, whose directory is made when missing.
func Start(argv []string, log string) (*Child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("go to the background: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return nil, fmt.Errorf("log directory: %w", err)
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("log file: %w", err)
	}
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("go to the background: %w", err)
	}
	defer w.Close() // the child holds the only end, so that its death is seen
	cmd := exec.Command(exe, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Stderr = out
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(os.Environ(), eventsEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		r.Close()
		return nil, fmt.Errorf("go to the background: %w", err)
	}
	return &Child{PID: cmd.Process.Pid, Log: log, cmd: cmd, events: r}, nil
}

// Follow calls onState with each state that the child reports and returns nil
// as soon as it has reached stage; the child then lives on without us. When it
// ends before, the error is a *ChildError with the child's exit code. When ctx
// ends before, the child is ended, too, and the error is ctx's cause.
// Follow must be called exactly once.
func (c *Child) Follow(ctx context.Context, stage control.State, onState func(control.Status)) error {
	defer c.events.Close()
	unhook := context.AfterFunc(ctx, func() { c.cmd.Process.Signal(syscall.SIGTERM) })
	reached, last := c.read(stage, onState)
	if reached && unhook() {
		return c.cmd.Process.Release()
	}
	unhook()
	err := c.wait()
	if ctx.Err() != nil {
		return fmt.Errorf("process %d ended with us: %w", c.PID, context.Cause(ctx))
	}
	return c.explain(last, err)
}

// read follows the pipe to the stage or to its end.
func (c *Child) read(stage control.State, onState func(control.Status)) (reached bool, last *end) {
	lines := bufio.NewScanner(c.events)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // not ours: a library that prints to every descriptor
		}
		if e.End != nil {
			last = e.End
		}
		if e.Status == nil {
			continue
		}
		onState(*e.Status)
		if e.Status.State.Reached(stage) {
			return true, nil
		}
	}
	return false, last
}

// wait for a child whose pipe is closed, or which was told to end.
func (c *Child) wait() error {
	ended := make(chan error, 1)
	go func() { ended <- c.cmd.Wait() }() // ends with the child, which Kill makes sure of
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case err := <-ended:
		return err
	case <-late.C:
		c.cmd.Process.Kill()
		return <-ended
	}
}

func (c *Child) explain(last *end, err error) error {
	logged := "see the log " + c.Log
	if last != nil && last.Text != "" {
		hint := logged
		if last.Hint != "" {
			hint = last.Hint + "; " + logged
		}
		return &ChildError{last.Text, hint, last.Code}
	}
	how := "it ended early"
	if err != nil {
		how = err.Error()
	}
	text := fmt.Sprintf("process %d in the background died without a word: %s", c.PID, how)
	if t := tail(c.Log); t != "" {
		text += "\nthe end of its log:\n" + t
	}
	return &ChildError{text, logged, max(c.cmd.ProcessState.ExitCode(), 0)}
}

// tail is the end of a file, indented, or nothing when it cannot be read.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Size() > tailSize {
		if _, err := f.Seek(-tailSize, io.SeekEnd); err != nil {
			return ""
		}
	}
	raw, _ := io.ReadAll(io.LimitReader(f, tailSize))
	text := strings.TrimSpace(string(raw))
	if text == "" {
		return ""
	}
	rows := strings.Split(text, "\n")
	return "  " + strings.Join(rows[max(0, len(rows)-tailRows):], "\n  ")
}

// LogPath names a new log file for a release: its name made fit for a file
// name, and a time, so that each start has its own.
func LogPath(stateDir, release string, now time.Time) string {
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("._+-", r) || r >= '0' && r <= '9' ||
			r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, release)
	name = strings.TrimLeft(name, ".") // no hidden files
	name = name[max(0, len(name)-100):]
	stamp := now.UTC().Format("20060102T150405.000")
	return filepath.Join(stateDir, "log", fmt.Sprintf("%s-%s-%d.log", name, stamp, os.Getpid()))
}
