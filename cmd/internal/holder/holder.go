// Package holder keeps a mount alive while the process that serves it may die:
// a parent that does nothing but hold what the mount hangs on, run the serving
// process again when a signal or a panic ended it, and end as that one ends.
//
// The two talk over one socket: the child deposits descriptors and a text that
// it wants to find again, as often as it likes; the newest counts. The parent
// must never read what is deposited, keep anything after the child ended in
// order, nor bring back a child that dies again and again. The child dies with
// its parent, so that there is one process to look at, and one to kill.
package holder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	heldEnv    = "_DCFS_HELD"      // says that there is a parent: its process id
	depositEnv = "_DCFS_DEPOSIT"   // what a former child deposited
	countEnv   = "_DCFS_DEPOSITED" // how many descriptors

	// Descriptors of the child. Before them, 3 is what Run is told to pass on.
	socketFD = 4
	keptFD   = 5

	maxKept  = 8       // descriptors in one deposit
	maxText  = 1 << 16 // bytes of its text
	panicked = 2       // exit code of a Go program that panics

	// A child that lives for less than soon counts as a failed attempt.
	soon     = 500 * time.Millisecond
	attempts = 5
)

// Ended is how the child ended. It has told the world by itself.
type Ended struct{ Code int }

func (e Ended) Error() string { return fmt.Sprintf("exit %d", e.Code) }

// ExitCode is the child's.
func (e Ended) ExitCode() int { return e.Code }

// Silent says that nothing is left to be printed.
func (e Ended) Silent() bool { return true }

// deposit is what the newest child wants its successor to have.
type deposit struct {
	text  []byte
	files []*os.File
}

func (d deposit) close() {
	for _, f := range d.files {
		f.Close()
	}
}

// keeper is the parent.
type keeper struct {
	exe    string
	argv   []string
	pass   *os.File
	log    *slog.Logger
	socket *os.File // our end

	mu   sync.Mutex
	kept *deposit
}

// Run is the parent's life: it runs argv again as its child, and again when
// that one died after a deposit. When ctx ends, the child is told to end in
// order. The child has pass, which may be nil, as its descriptor 3. Run returns
// nil when the child ended with 0, else Ended.
func Run(ctx context.Context, argv []string, pass *os.File, log *slog.Logger) error {
	// A child dies with the thread that made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("the holder's socket: %w", err)
	}
	k := &keeper{exe: exe, argv: argv, pass: pass, log: log, socket: os.NewFile(uintptr(pair[0]), "holder")}
	theirs := os.NewFile(uintptr(pair[1]), "child")
	var receiving sync.WaitGroup
	receiving.Go(k.receive)
	err = k.live(ctx, theirs)
	theirs.Close() // the last copy: receive ends
	receiving.Wait()
	k.socket.Close()
	if k.kept != nil {
		k.kept.close()
	}
	return err
}

// live runs child after child.
func (k *keeper) live(ctx context.Context, theirs *os.File) error {
	failed := 0
	for {
		start := time.Now()
		state, err := k.child(ctx, theirs)
		if err != nil {
			return err
		}
		status := state.Sys().(syscall.WaitStatus)
		crashed := status.Signaled() || status.ExitStatus() == panicked
		if failed++; time.Since(start) > soon {
			failed = 0
		}
		if !crashed || ctx.Err() != nil || !k.holds() {
			return verdict(status)
		}
		if failed >= attempts {
			k.log.Error("the process that serves the mount dies again and again; the mount ends", "was", state.String(), "attempts", failed)
			return verdict(status)
		}
		k.log.Warn("the process that serves the mount died; another takes over", "was", state.String(), "pid", state.Pid())
	}
}

func verdict(status syscall.WaitStatus) error {
	switch {
	case status.Signaled():
		return Ended{128 + int(status.Signal())}
	case status.ExitStatus() != 0:
		return Ended{status.ExitStatus()}
	}
	return nil
}

// child runs one child to its end.
func (k *keeper) child(ctx context.Context, theirs *os.File) (*os.ProcessState, error) {
	cmd := exec.Command(k.exe, k.argv[1:]...)
	cmd.Args[0] = k.argv[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), heldEnv+"="+strconv.Itoa(os.Getpid()))
	// A group of its own: a Ctrl-C is for us, who pass it on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.ExtraFiles = []*os.File{k.pass, theirs}
	if err := k.start(cmd); err != nil {
		return nil, fmt.Errorf("the process that serves the mount: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	return cmd.ProcessState, nil
}

// start starts a child with what is kept, which must not change meanwhile: the
// last word of the one before may still be on its way.
func (k *keeper) start(cmd *exec.Cmd) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.kept; d != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, d.files...)
		cmd.Env = append(cmd.Env, depositEnv+"="+string(d.text), countEnv+"="+strconv.Itoa(len(d.files)))
	}
	return cmd.Start()
}

func (k *keeper) holds() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept != nil
}

// keep takes a deposit in the place of the one before.
func (k *keeper) keep(d deposit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept != nil {
		k.kept.close()
	}
	k.kept = &d
}

// receive takes deposits until no child can make one any more.
func (k *keeper) receive() {
	for {
		d, err := receive(int(k.socket.Fd()))
		if err != nil {
			return
		}
		k.keep(d)
		_, _ = unix.Write(int(k.socket.Fd()), []byte{1}) // it is kept
	}
}

var errEnd = errors.New("end")

func receive(fd int) (d deposit, err error) {
	text, control := make([]byte, maxText), make([]byte, unix.CmsgSpace(4*maxKept))
	for {
		n, c, _, _, err := unix.Recvmsg(fd, text, control, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return d, errors.Join(errEnd, err)
		}
		d.text = text[:n]
		messages, err := unix.ParseSocketControlMessage(control[:c])
		if err != nil {
			return d, err
		}
		for _, m := range messages {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				return d, err
			}
			for _, fd := range fds {
				d.files = append(d.files, os.NewFile(uintptr(fd), "deposit"))
			}
		}
		return d, nil
	}
}
