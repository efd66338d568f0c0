package holder

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a deposit may take: the parent does nothing else.
const patience = 5 * time.Second

// Child is the child's end. It is safe for concurrent use.
type Child struct {
	Parent int        // process id of who holds
	Text   []byte     // what a former child deposited; nil for the first
	Files  []*os.File // the descriptors that go with it; the caller closes them

	mu     sync.Mutex
	socket int
}

// Held reports whether Run made this process. It is false after Inherit.
func Held() bool { return os.Getenv(heldEnv) == strconv.Itoa(os.Getppid()) }

// Inherit returns the child's end in a process that Run made, and nil in any
// other. It takes the signs away, so that the child's own children do not take
// themselves for ours.
func Inherit() *Child {
	parent, err := strconv.Atoi(os.Getenv(heldEnv))
	if err != nil || parent != os.Getppid() {
		return nil
	}
	c := &Child{Parent: parent, socket: socketFD}
	unix.CloseOnExec(socketFD)
	if n, err := strconv.Atoi(os.Getenv(countEnv)); err == nil {
		c.Text = []byte(os.Getenv(depositEnv))
		for i := range min(n, maxKept) {
			unix.CloseOnExec(keptFD + i)
			c.Files = append(c.Files, os.NewFile(uintptr(keptFD+i), "deposit"))
		}
	}
	for _, name := range []string{heldEnv, depositEnv, countEnv} {
		os.Unsetenv(name)
	}
	return c
}

// Deposit gives the parent copies of files, and a text, for a successor. It
// returns when the parent has them. The text must hold no NUL.
func (c *Child) Deposit(text []byte, files ...*os.File) error {
	if len(text) > maxText || len(files) > maxKept {
		return fmt.Errorf("a deposit of %d bytes and %d files is too large", len(text), len(files))
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := unix.Sendmsg(c.socket, text, unix.UnixRights(fds...), nil, 0); err != nil {
		return fmt.Errorf("deposit: %w", err)
	}
	return c.confirmed()
}

// confirmed waits for the parent's word.
func (c *Child) confirmed() error {
	deadline := time.Now().Add(patience)
	poll := []unix.PollFd{{Fd: int32(c.socket), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(time.Until(deadline).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("deposit: %w", err)
		case n == 0:
			return fmt.Errorf("deposit: no word of the holder within %s", patience)
		}
		_, err = unix.Read(c.socket, make([]byte, 1))
		return err
	}
}
