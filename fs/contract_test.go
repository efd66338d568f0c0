package fs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"dcfs/fs/contract"
	"dcfs/fs/tree"
)

const contractSize = 300_001

// The fake that stands in for the store keeps to what the store promises.
func TestFakeContentContract(t *testing.T) {
	contract.Run(t, func(t *testing.T) contract.Subject {
		m := newMemory(build(file("f", contractSize)))
		m.close(0, contractSize)
		return contract.Subject{Content: m, Data: m.data, Release: m.openOnce()}
	})
}

// A mounted file keeps to it, too, with its own deadline instead of a context.
func TestMountContentContract(t *testing.T) {
	contract.Run(t, func(t *testing.T) contract.Subject {
		tr := build(file("f", contractSize))
		m := newMemory(tr)
		m.close(0, contractSize)
		mp := t.TempDir()
		mountAt(t, mp, Config{Tree: tr, Content: m, ReadTimeout: contract.Patience, Log: (&logs{}).logger(),
			OnRead: func(tree.ID, int64, int) {}})
		return contract.Subject{Content: readerOf{t, mp + "/f"}, Data: m.file(tr, "f"), Release: m.openOnce()}
	})
}

func (m *memory) openOnce() func() { return sync.OnceFunc(m.open) }

// readerOf reads a file in a process of its own: this one must not touch the
// mounts that it serves.
type readerOf struct {
	t    *testing.T
	path string
}

func (r readerOf) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), os.Args[0], r.path, fmt.Sprint(off), fmt.Sprint(len(p)))
	cmd.Env = append(os.Environ(), roleEnv+"=pread")
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	text, data, ok := strings.Cut(string(out), "\n")
	switch {
	case !ok || text != "":
		return 0, fmt.Errorf("pread: %s", text)
	case len(data) < len(p):
		return copy(p, data), io.EOF
	}
	return copy(p, data), nil
}

// preadOnce prints an errno's text or nothing on a line, and then the bytes.
func preadOnce(args []string) error {
	var off int64
	var n int
	if _, err := fmt.Sscan(args[1]+" "+args[2], &off, &n); err != nil {
		return err
	}
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	p := make([]byte, n)
	got, err := unix.Pread(fd, p, off)
	w := bufio.NewWriter(os.Stdout)
	if err != nil {
		got = 0
		fmt.Fprint(w, err)
	}
	fmt.Fprintln(w)
	_, _ = w.Write(p[:got])
	return w.Flush()
}
