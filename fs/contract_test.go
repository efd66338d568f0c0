package fs

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
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
		return contract.Subject{Content: readerOf{t, mp + "/f", make(chan *actor, 4)}, Data: m.file(tr, "f"), Release: m.openOnce()}
	})
}

func (m *memory) openOnce() func() { return sync.OnceFunc(m.open) }

// readerOf reads a file in processes of their own: this one must not touch the
// mounts that it serves. Reads at the same time have a process each.
type readerOf struct {
	t    *testing.T
	path string
	idle chan *actor
}

func (r readerOf) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	var a *actor
	select {
	case a = <-r.idle:
	default:
		a = start(r.t, role(r.t, "pread", r.path))
	}
	fmt.Fprintln(a.in, off, len(p))
	if !a.out.Scan() {
		return 0, errors.New("the reading process has ended")
	}
	text, data, _ := strings.Cut(a.out.Text(), "|")
	select {
	case r.idle <- a:
	default: // enough of them; it ends with the test
	}
	b, err := hex.DecodeString(data)
	switch {
	case text != "" || err != nil:
		return 0, fmt.Errorf("pread: %s", text)
	case len(b) < len(p):
		return copy(p, b), io.EOF
	}
	return copy(p, b), nil
}

// preads answers each line on stdin, an offset and a length, with the text of
// an errno or nothing, a bar, and the bytes in hexadecimal.
func preads(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var off int64
		var n int
		if _, err := fmt.Sscan(in.Text(), &off, &n); err != nil {
			return err
		}
		p, text := make([]byte, n), ""
		got, err := unix.Pread(fd, p, off)
		if err != nil {
			got, text = 0, err.Error()
		}
		fmt.Printf("%s|%x\n", text, p[:got])
	}
	return nil
}
