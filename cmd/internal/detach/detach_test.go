package detach

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dcfs/cmd/internal/control"
)

// The test binary is its own child: Start runs it again, and a process that
// inherited a pipe plays the part that its last argument names.
func TestMain(m *testing.M) {
	if r := Inherit(); r != nil {
		os.Exit(parts[os.Args[len(os.Args)-1]](r))
	}
	goleak.VerifyTestMain(m)
}

func at(s control.State) control.Status { return control.Status{PID: os.Getpid(), State: s} }

// stay keeps the process until somebody ends it, or the test forgets to.
func stay() { time.Sleep(30 * time.Second) }

var parts = map[string]func(*Reporter) int{
	"reaches": func(r *Reporter) int {
		if os.Getenv(eventsEnv) != "" {
			fmt.Fprintln(os.Stderr, "the sign is still there")
			return 1
		}
		r.State(at(control.Announced))
		r.State(at(control.Mounted))
		stay()
		return 0
	},
	"fails": func(r *Reporter) int {
		r.State(at(control.Announced))
		r.State(at(control.Failed))
		r.End("destination: exists with other content", "choose another --dest", 73)
		return 73
	},
	"mute": func(*Reporter) int {
		fmt.Fprintln(os.Stderr, "panic: something odd")
		return 2
	},
	"killed": func(*Reporter) int {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		return 0
	},
	"early": func(r *Reporter) int {
		r.State(at(control.Announced))
		r.End("", "", 0)
		return 0
	},
	"skips": func(r *Reporter) int { // a state later than the one asked for
		r.State(at(control.Materialised))
		stay()
		return 0
	},
	"noise": func(r *Reporter) int {
		fmt.Fprintln(r.pipe, "not JSON")
		r.State(at(control.Mounted))
		stay()
		return 0
	},
	"stays": func(r *Reporter) int {
		r.State(at(control.Announced))
		stay()
		return 0
	},
}

func start(t *testing.T, part string) *Child {
	t.Helper()
	c, err := Start([]string{os.Args[0], part}, filepath.Join(t.TempDir(), "log", part+".log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(c.PID, syscall.SIGKILL); reap(c.PID) })
	return c
}

// reap waits for a child that Follow let go.
func reap(pid int) {
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

func TestFollow(t *testing.T) {
	for _, c := range []struct {
		part string
		code int
		text []string // parts of the error; none: the stage is reached
	}{
		{part: "reaches"},
		{part: "skips"},
		{part: "noise"},
		{"fails", 73, []string{"exists with other content"}},
		{"mute", 2, []string{"died without a word", "exit status 2", "  panic: something odd"}},
		{"killed", 0, []string{"died without a word", "killed"}},
		{"early", 0, []string{"died without a word", "ended early"}},
	} {
		t.Run(c.part, func(t *testing.T) {
			child := start(t, c.part)
			var states []control.State
			err := child.Follow(context.Background(), control.Mounted, func(s control.Status) {
				states = append(states, s.State)
			})
			if len(c.text) == 0 {
				if err != nil || len(states) == 0 || !states[len(states)-1].Reached(control.Mounted) {
					t.Fatalf("states %v, error %v", states, err)
				}
				if err := syscall.Kill(child.PID, 0); err != nil {
					t.Errorf("the child does not live on: %v", err)
				}
				return
			}
			var ce *ChildError
			if !errors.As(err, &ce) || ce.ExitCode() != c.code {
				t.Fatalf("error %v, want a ChildError with code %d", err, c.code)
			}
			for _, want := range c.text {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q:\n%v", want, err)
				}
			}
			if !strings.Contains(ce.Hint(), child.Log) {
				t.Errorf("hint does not name the log: %s", ce.Hint())
			}
		})
	}
}

func TestFollowEndsTheChildWithTheParent(t *testing.T) {
	child := start(t, "stays")
	ctx, cancel := context.WithCancel(context.Background())
	err := child.Follow(ctx, control.Mounted, func(control.Status) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
	if err := syscall.Kill(child.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the child is still there: %v", err)
	}
}

// TestChildHoldsNothing: a script that waits for the end of our output must
// not wait for the child.
func TestChildHoldsNothing(t *testing.T) {
	child := start(t, "reaches")
	if err := child.Follow(context.Background(), control.Mounted, func(control.Status) {}); err != nil {
		t.Fatal(err)
	}
	for fd, want := range []string{"/dev/null", "/dev/null", child.Log} {
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", child.PID, fd)); got != want {
			t.Errorf("descriptor %d is %s (%v), want %s", fd, got, err, want)
		}
	}
	if sid, err := getsid(child.PID); err != nil || sid != child.PID {
		t.Errorf("session %d (%v), want its own", sid, err)
	}
}

func getsid(pid int) (int, error) {
	r, _, errno := syscall.RawSyscall(syscall.SYS_GETSID, uintptr(pid), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

func TestInheritWithoutParent(t *testing.T) {
	var none *Reporter
	none.State(at(control.Mounted)) // must do nothing
	none.End("", "", 0)
	if r := Inherit(); r != nil {
		t.Error("a reporter without a parent")
	}
}

func TestLogPath(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct{ release, want string }{
		{"web-1", "web-1-20260102T030405.000-"},
		{"app/1.0+b", "app_1.0+b-20260102T030405.000-"},
		{"../../etc/x.torrent", "_.._etc_x.torrent-20260102T030405.000-"},
		{"http://o:7070/v1/releases/a", "http___o_7070_v1_releases_a-"},
		{strings.Repeat("x", 300), strings.Repeat("x", 100) + "-"},
	} {
		got := LogPath("/s", c.release, now)
		if filepath.Dir(got) != "/s/log" || !strings.HasPrefix(filepath.Base(got), c.want) {
			t.Errorf("%s: %s, want %s…", c.release, got, c.want)
		}
	}
}
