package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Host is one machine of a lab. Its methods are safe for concurrent use.
type Host struct {
	Name  string // short name, unique in the lab
	Addr  string // IPv4 address, without length
	Addr6 string // IPv6 address, without length
	Dir   string // the host's own directory; removed with the test

	lab       *Lab
	namespace string
	port      string // the bridge's end of the link
}

// State is the host's directory for lasting state.
func (h *Host) State() string { return filepath.Join(h.Dir, "state") }

// Run is the host's directory for sockets.
func (h *Host) Run() string { return filepath.Join(h.Dir, "run") }

// Releases is the host's directory for materialised releases.
func (h *Host) Releases() string { return filepath.Join(h.Dir, "releases") }

// Mnt is the host's directory for mountpoints.
func (h *Host) Mnt() string { return filepath.Join(h.Dir, "mnt") }

// Enter returns the words that, put before a command line, run it in the host.
//
// It is nsenter and not `ip netns exec`: the latter gives every command a mount
// namespace of its own, in which nobody else would see what it mounts. nsenter
// execs without a fork, so the process id is that of the program.
func (h *Host) Enter() []string {
	return []string{"nsenter", "--net=/run/netns/" + h.namespace, "--"}
}

// Command is exec.CommandContext in the host, in its directory. The program is
// killed when ctx ends or the test process dies.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	words := append(h.Enter(), name)
	words = append(words, args...)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Dir = h.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// A grandchild that keeps the pipes open must not hold the test up.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Dial connects from inside the host; addr is an address and not a name.
func (h *Host) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var (
		conn net.Conn
		err  error
	)
	if e := h.inside(func() { conn, err = new(net.Dialer).DialContext(ctx, network, addr) }); e != nil {
		return nil, e
	}
	return conn, err
}

// Listen listens inside the host.
func (h *Host) Listen(network, addr string) (net.Listener, error) {
	var (
		ln  net.Listener
		err error
	)
	if e := h.inside(func() { ln, err = net.Listen(network, addr) }); e != nil {
		return nil, e
	}
	return ln, err
}

// Namespace is the name of the host's network namespace, and Port that of the
// bridge's end of its link, in the namespace Lab.Hub: for scripts that cut hosts off.
func (h *Host) Namespace() string { return h.namespace }

// Port is explained at Namespace.
func (h *Host) Port() string { return h.port }

// Client speaks HTTP from inside the host. It keeps no connection, so that it
// holds nothing in the host between two requests.
func (h *Host) Client() *http.Client {
	return &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true},
	}
}

// inside runs f on a thread that is in the host's network namespace: a socket
// belongs for ever to the namespace in which it was made.
func (h *Host) inside(f func()) (err error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	away, err := os.Open("/run/netns/" + h.namespace)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer away.Close()
	if err := unix.Setns(int(away.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", h.namespace, err)
	}
	f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		// The thread stays locked: it must not run another goroutine, and ends
		// with this one.
		return fmt.Errorf("return from %s: %w", h.namespace, err)
	}
	runtime.UnlockOSThread()
	return nil
}

// Unmount detaches whatever is mounted at path, all layers of it; a path that
// is not a mountpoint is no error. For mounts that a test is meant to leave,
// such as the bind mount of a handover.
func (h *Host) Unmount(path string) error {
	for range 8 {
		err := unix.Unmount(path, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return fmt.Errorf("unmount %s: still a mountpoint after 8 layers", path)
}

// Processes are the ids of all processes in the host, with their command lines.
func (h *Host) Processes() map[string]string {
	found := map[string]string{}
	for _, pid := range pids(h.namespace) {
		found[pid] = commandLine(pid)
	}
	return found
}

// pids are the processes in the host.
func pids(namespace string) []string {
	out, err := exec.Command("ip", "netns", "pids", namespace).Output()
	if err != nil {
		return nil
	}
	return strings.Fields(string(out))
}
