package holder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
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
		os.Exit(99)
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
		time.Sleep(time.Minute)
	case life == 0:
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case life == 1:
		panic("in the second life")
	}
	os.Exit(7)
}

// hold runs a parent and returns what its children wrote.
func hold(t *testing.T, ctx context.Context, role string) (string, error) {
	t.Helper()
	t.Setenv(roleEnv, role)
	f, err := os.Create(filepath.Join(t.TempDir(), "lives"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = Run(ctx, os.Args[:1], f, slog.New(slog.DiscardHandler))
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
	wrote, err := hold(t, t.Context(), "three lives")
	if wrote != "0 true;1 true;2 true;" || code(err) != 7 {
		t.Errorf("%q, %v", wrote, err)
	}
}

// TestGivesUp: without a deposit nothing is there to take over, and a child
// that dies again and again is not brought back for ever.
func TestGivesUp(t *testing.T) {
	if wrote, err := hold(t, t.Context(), "no deposit"); wrote != "0 true;" || code(err) != 128+9 {
		t.Errorf("%q, %v", wrote, err)
	}
	if wrote, err := hold(t, t.Context(), "forever"); strings.Count(wrote, ";") != attempts || code(err) != 128+9 {
		t.Errorf("%q, %v", wrote, err)
	}
}

func TestTold(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := hold(t, ctx, "wait")
	if code(err) != 128+15 || time.Since(start) > 30*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

func TestNobodyHolds(t *testing.T) {
	t.Setenv(heldEnv, "1") // exported by somebody
	if c := Inherit(); c != nil {
		t.Errorf("%+v", c)
	}
}
