// Package holder keeps a mount alive while the process that serves it may die:
// a parent that does nothing but hold what the mount hangs on, run the serving
// process again when a signal or a panic ended it, and end as that one ends.
//
// The two talk over one socket: the child deposits descriptors and a text that
// it wants to find again, as often as it likes; the newest counts. The parent
// must never read what is deposited, keep anything after the child ended in
// order, nor bring back a child that dies again and again. The child dies with
// its parent, so that there is one process to look at, and one to kill.
//
// What is deposited can outlive the parent, too: Store is somebody who keeps it
// for the next one, and on SIGUSR2 the parent becomes the program that is on the
// disk by then, without letting go.
package holder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	heldEnv    = "_DCFS_HELD"      // says that there is a parent: its process id
	depositEnv = "_DCFS_DEPOSIT"   // what a former child deposited
	countEnv   = "_DCFS_DEPOSITED" // how many descriptors

	// End tells the child to end in order. It is no signal that others send: a
	// second SIGTERM, from whoever signals a whole group, would end it at once.
	End = unix.SIGUSR1

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

// Deposit is what the newest child wants its successor to have.
type Deposit struct {
	Text  []byte
	Files []*os.File
}

// Close closes the files; nil has none.
func (d *Deposit) Close() {
	if d == nil {
		return
	}
	for _, f := range d.Files {
		f.Close()
	}
}

// Store keeps a copy of the newest deposit beyond the parent's death.
type Store interface {
	// Keep takes a deposit in the place of the one before. The files are the
	// same as those of the first, in other descriptors.
	Keep(text []byte, files []*os.File) error
	// Clear lets everything go.
	Clear()
}

// Config is a parent's life.
type Config struct {
	Argv  []string // of the child, from its name on
	Pass  *os.File // the child's descriptor 3; may be nil
	Store Store    // may be nil
	// Found is what a former parent kept; nil for nothing. Run closes it.
	Found *Deposit
	Log   *slog.Logger
}

// keeper is the parent.
type keeper struct {
	Config
	exe    string
	socket *os.File       // our end
	asked  chan os.Signal // SIGUSR2
	renew  atomic.Bool    // the child was killed for it

	mu   sync.Mutex
	kept *Deposit
}

// Run is the parent's life: it runs Argv as its child, and again when that one
// died after a deposit. When ctx ends, the child is told to end in order. Run
// returns nil when the child ended with 0, else Ended.
func Run(ctx context.Context, c Config) error {
	// A child dies with the thread that made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := blockEnd(); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("the holder's socket: %w", err)
	}
	k := &keeper{Config: c, exe: exe, kept: c.Found, socket: os.NewFile(uintptr(pair[0]), "holder"), asked: make(chan os.Signal, 1)}
	signal.Notify(k.asked, unix.SIGUSR2)
	defer signal.Stop(k.asked)
	theirs := os.NewFile(uintptr(pair[1]), "child")
	var receiving sync.WaitGroup
	receiving.Go(k.receive)
	err = k.live(ctx, theirs)
	theirs.Close() // the last copy: receive ends
	receiving.Wait()
	k.socket.Close()
	if k.renew.Load() {
		return k.become()
	}
	k.kept.Close()
	if k.Store != nil {
		k.Store.Clear()
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
		switch {
		case !crashed || ctx.Err() != nil || !k.holds():
			k.renew.Store(false) // it ended, or is to end, by itself
			return verdict(status)
		case k.renew.Load():
			return nil
		}
		if failed >= attempts {
			k.Log.Error("the process that serves the mount dies again and again; the mount ends", "was", state.String(), "attempts", failed)
			return verdict(status)
		}
		k.Log.Warn("the process that serves the mount died; another takes over", "was", state.String(), "pid", state.Pid())
	}
}

// blockEnd keeps End back from the children of this thread until they listen
// for it: before, it would be lost on them, or their end.
func blockEnd() error {
	var set unix.Sigset_t
	set.Val[0] = 1 << (End - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		return fmt.Errorf("block %s: %w", End, err)
	}
	return nil
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
	cmd := exec.Command(k.exe, k.Argv[1:]...)
	cmd.Args[0] = k.Argv[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), heldEnv+"="+strconv.Itoa(os.Getpid()))
	// A group of its own: a Ctrl-C is for us, who pass it on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.ExtraFiles = []*os.File{k.Pass, theirs}
	if err := k.start(cmd); err != nil {
		return nil, fmt.Errorf("the process that serves the mount: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(End) })()
	defer k.awaitRenewal(cmd.Process)()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	return cmd.ProcessState, nil
}

// awaitRenewal ends the child when SIGUSR2 comes and there is something to go
// on with, in this program and in the one on the disk. The returned function
// ends the waiting.
func (k *keeper) awaitRenewal(child *os.Process) func() {
	done := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-k.asked:
			}
			if err := k.renewable(); err != nil {
				k.Log.Error("SIGUSR2: the process goes on as it is", "cause", err)
				continue
			}
			k.renew.Store(true)
			_ = child.Kill()
			return
		}
	})
	return func() { close(done); waiting.Wait() }
}

// start starts a child with what is kept, which must not change meanwhile: the
// last word of the one before may still be on its way.
func (k *keeper) start(cmd *exec.Cmd) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d := k.kept; d != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, d.Files...)
		cmd.Env = append(cmd.Env, depositEnv+"="+string(d.Text), countEnv+"="+strconv.Itoa(len(d.Files)))
	}
	return cmd.Start()
}

func (k *keeper) holds() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept != nil
}

// keep takes a deposit in the place of the one before.
func (k *keeper) keep(d *Deposit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept.Close()
	k.kept = d
	if k.Store == nil {
		return
	}
	if err := k.Store.Keep(d.Text, d.Files); err != nil {
		k.Log.Warn("the mount will not survive this process", "cause", err)
	}
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

func receive(fd int) (*Deposit, error) {
	text, control := make([]byte, maxText), make([]byte, unix.CmsgSpace(4*maxKept))
	for {
		n, c, _, _, err := unix.Recvmsg(fd, text, control, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return nil, errors.Join(errEnd, err)
		}
		d := &Deposit{Text: slices.Clone(text[:n])}
		messages, err := unix.ParseSocketControlMessage(control[:c])
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				return nil, err
			}
			for _, fd := range fds {
				d.Files = append(d.Files, os.NewFile(uintptr(fd), "deposit"))
			}
		}
		return d, nil
	}
}
