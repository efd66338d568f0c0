package holder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const roleEnv = "DCFS_HOLDER_TEST"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if c := Inherit(); c != nil {
			play(c, role)
		}
		os.Exit(parent())
	}
	goleak.VerifyTestMain(m)
}

// play is a child. It counts its lives in the text that it deposits, and writes
// to the file that it deposits with it.
func play(c *Child, role string) {
	life := len(c.Text)
	pass := os.NewFile(3, "")
	f := pass
	if life > 0 {
		f = c.Files[0]
	}
	fmt.Fprintf(f, "%d %v;", life, c.Parent == os.Getppid())
	if role == "no deposit" {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	if err := c.Deposit([]byte(strings.Repeat("x", life+1)), f); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(97)
	}
	switch {
	case role == "forever":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case role == "wait":
		told := make(chan os.Signal, 1)
		time.Sleep(500 * time.Millisecond) // it comes before anybody listens
		signal.Notify(told, End)
		<-told
		fmt.Fprint(f, "told;")
		os.Exit(9)
	case role == "renew" && life == 0:
		fmt.Fprint(f, "deposited;")
		time.Sleep(time.Minute)
	case role == "renew":
	case life == 0:
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case life == 1:
		panic("in the second life")
	}
	os.Exit(7)
}

// parent is a parent in a process of its own, which SIGUSR2 may make another.
func parent() int {
	if len(os.Args) > 1 {
		return 0 // --version
	}
	found := Renewed()
	if found != nil {
		fmt.Fprintf(os.NewFile(3, ""), "renewed with %q;", found.Text)
	}
	c := Config{Argv: os.Args[:1], Pass: os.NewFile(3, ""), Found: found, Log: slog.New(slog.DiscardHandler)}
	return code(Run(context.Background(), c))
}

// kept is a Store.
type kept struct{ said string }

func (k *kept) Keep(text []byte, files []*os.File) error {
	k.said += fmt.Sprintf("%s %d;", text, len(files))
	return nil
}

func (k *kept) Clear() { k.said += "clear" }

// hold runs a parent and returns what its children wrote.
func hold(t *testing.T, ctx context.Context, role string, store Store) (string, error) {
	t.Helper()
	t.Setenv(roleEnv, role)
	f, err := os.Create(filepath.Join(t.TempDir(), "lives"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = Run(ctx, Config{Argv: os.Args[:1], Pass: f, Store: store, Log: slog.New(slog.DiscardHandler)})
	wrote, rerr := os.ReadFile(f.Name())
	if rerr != nil {
		t.Fatal(rerr)
	}
	return string(wrote), err
}

func code(err error) int {
	var e Ended
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}

func TestSuccessors(t *testing.T) {
	var store kept
	wrote, err := hold(t, t.Context(), "three lives", &store)
	if wrote != "0 true;1 true;2 true;" || code(err) != 7 {
		t.Errorf("%q, %v", wrote, err)
	}
	if store.said != "x 1;xx 1;xxx 1;clear" {
		t.Errorf("the store was told %q", store.said)
	}
}

// TestGivesUp: without a deposit nothing is there to take over, and a child
// that dies again and again is not brought back for ever.
func TestGivesUp(t *testing.T) {
	if wrote, err := hold(t, t.Context(), "no deposit", nil); wrote != "0 true;" || code(err) != 128+9 {
		t.Errorf("%q, %v", wrote, err)
	}
	if wrote, err := hold(t, t.Context(), "forever", nil); strings.Count(wrote, ";") != attempts || code(err) != 128+9 {
		t.Errorf("%q, %v", wrote, err)
	}
}

// TestTold: the child is told to end by a signal that waits until it listens.
func TestTold(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if wrote, err := hold(t, ctx, "wait", nil); wrote != "0 true;told;" || code(err) != 9 {
		t.Errorf("%q, %v", wrote, err)
	}
}

// TestRenew: the parent becomes the program on the disk, with the same process
// id, and the next child has what the one before deposited.
func TestRenew(t *testing.T) {
	t.Setenv(roleEnv, "renew")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(os.Args[0])
	cmd.ExtraFiles, cmd.Stderr = []*os.File{w}, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	w.Close()
	var said string
	for buf := make([]byte, 256); ; {
		n, err := r.Read(buf)
		said += string(buf[:n])
		if strings.HasSuffix(said, "deposited;") { // in the first life
			cmd.Process.Signal(syscall.SIGUSR2)
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	if said != `0 true;deposited;renewed with "x";1 true;` || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("%q, %v", said, err)
	}
}

func TestNobodyHolds(t *testing.T) {
	t.Setenv(heldEnv, "1") // exported by somebody
	if c := Inherit(); c != nil {
		t.Errorf("%+v", c)
	}
}
