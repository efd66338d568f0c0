package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
)

const (
	maxOutput = 1 << 20 // bytes of a command's output that are kept
	maxErrors = 4 << 10
	goneGrace = 3 * time.Second // for a command that was told to end
)

// Shell runs commands on hosts by a program that takes a host and a command
// line as its last two arguments, as ssh does.
type Shell struct{ Words []string }

// Run implements Runner. The program is a process group of its own, so that a
// Ctrl-C at the terminal is for us alone.
func (s Shell) Run(ctx context.Context, host, command string) ([]byte, error) {
	args := append(append([]string(nil), s.Words[1:]...), host, command)
	cmd := exec.CommandContext(ctx, s.Words[0], args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = goneGrace
	stdout, stderr := &keep{max: maxOutput}, &keep{max: maxErrors}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	if err == nil {
		return stdout.b, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if text := lastWords(stderr.b); text != "" {
		err = fmt.Errorf("%s: %w", text, err)
	}
	return nil, err
}

// keep is a writer that remembers the end of what was written: at least max
// bytes, and at most twice as many.
type keep struct {
	b   []byte
	max int
}

func (k *keep) Write(p []byte) (int, error) {
	n := len(p)
	p = p[max(0, n-k.max):]
	if len(k.b) > k.max {
		k.b = append(k.b[:0], k.b[len(k.b)-k.max:]...)
	}
	k.b = append(k.b, p...)
	return n, nil
}

// lastWords is what a program said last: dcfs ends with what failed and what
// to try.
func lastWords(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasPrefix(lines[i], "dcfs: ") {
			return strings.Join(lines[i:], "; ")
		}
	}
	return progressWords(strings.TrimSpace(lines[len(lines)-1]))
}

// progressWords makes a line of progress, which dcfs on a host writes every
// second, readable; other lines stay as they are.
func progressWords(line string) string {
	var l struct {
		Progress struct {
			Stage     string `json:"stage"`
			Bytes     int64  `json:"bytes"`
			BytesHave int64  `json:"bytes_have"`
			DownRate  int64  `json:"down_rate"`
			Bound     string `json:"bound"`
		} `json:"progress"`
	}
	if json.Unmarshal([]byte(line), &l) != nil || l.Progress.Stage == "" {
		return line
	}
	p := l.Progress
	text := fmt.Sprintf("it was %s, with %s of %s and %s a second", p.Stage, humanize.IBytes(uint64(max(p.BytesHave, 0))),
		humanize.IBytes(uint64(max(p.Bytes, 0))), humanize.IBytes(uint64(max(p.DownRate, 0))))
	if p.Bound != "" {
		text += ", held by " + p.Bound
	}
	return text
}

// quote makes words one command line for a POSIX shell.
func quote(words ...string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = w
		if w == "" || strings.ContainsFunc(w, func(r rune) bool {
			return !strings.ContainsRune("%+,-./:=@_", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		}) {
			out[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}

func (c Config) copyDir() string    { return path.Join(c.Dest, c.Version) }
func (c Config) mountpoint() string { return path.Join(c.Mount, c.Version) }

// Commands are the command lines that Deploy runs on a host, with EPOCH in the
// place of the number that it chooses.
func (c Config) Commands() []string {
	all := []string{c.askLine(), c.fetchLine(), c.swapLine("EPOCH")}
	if c.Health != "" {
		all = append(all, c.healthLine())
	}
	return append(all, c.takeBackLine("EPOCH"))
}

func (c Config) askLine() string {
	return quote(c.Dcfs, "receipt", c.copyDir(), "--link", c.Current, "--json")
}

func (c Config) fetchLine() string {
	words := append([]string{c.Dcfs, "mount", c.Version, c.mountpoint(), "--dest", c.copyDir(),
		"--detach-after", "materialised", "--json"}, c.Flags...)
	// Where a killed process left its mount mkdir fails, and dcfs puts it right.
	return quote("mkdir", "-p", c.mountpoint()) + "; exec " + quote(words...)
}

func (c Config) statusLine() string { return quote(c.Dcfs, "status", "--json") }

func (c Config) swapLine(epoch string) string {
	return quote(c.Dcfs, "activate", c.Current, c.copyDir(), "--epoch", epoch, "--json")
}

func (c Config) takeBackLine(epoch string) string {
	return quote(c.Dcfs, "rollback", c.Current, "--epoch", epoch, "--json")
}

func (c Config) healthLine() string {
	return quote("env", "DCFS_RELEASE="+c.Version, "DCFS_CURRENT="+c.Current, "sh", "-c", c.Health)
}

// ask runs a short command on a host and reads its JSON.
func (d *deployment) ask(ctx context.Context, host, line string, answer any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.cfg.CallTimeout, fmt.Errorf("no answer within %s", d.cfg.CallTimeout))
	defer cancel()
	return d.call(ctx, host, line, answer)
}

var errAnswer = errors.New("no answer of dcfs")

func (d *deployment) call(ctx context.Context, host, line string, answer any) error {
	out, err := d.cfg.Runner.Run(ctx, host, line)
	if err != nil {
		return err
	}
	out = bytes.TrimSpace(out)
	// A login shell may have greeted first.
	if i := bytes.LastIndexByte(out, '\n'); i >= 0 {
		out = out[i+1:]
	}
	if err := json.Unmarshal(out, answer); err != nil {
		return fmt.Errorf("%w: %.200q", errAnswer, out)
	}
	return nil
}

func epochText(e int64) string { return strconv.FormatInt(e, 10) }
