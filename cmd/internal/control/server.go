package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const (
	statusPath = "/v1/status"
	ioTimeout  = 5 * time.Second // one question and its answer, on a local socket
)

// SocketPath is where the process pid answers in the run directory.
func SocketPath(runDir string, pid int) string {
	return filepath.Join(runDir, strconv.Itoa(pid)+".sock")
}

// Listener is a bound control socket. It is visible and accepts as soon as
// Listen has returned.
type Listener struct {
	path string
	dir  *os.File
	net  *net.UnixListener
}

// Listen binds the control socket at path (mode 0600), making its directory
// (0755) when that is missing. A socket that a dead process left is replaced.
func Listen(path string) (*Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	ln, err := bind(dir, filepath.Base(path))
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return &Listener{path: path, dir: dir, net: ln}, nil
}

// bind makes the socket in a private directory and moves it to its name when
// it is ready, so that nobody meets it with a wrong mode or before it accepts:
// whoever finds a socket that refuses knows that its process is gone.
func bind(dir *os.File, name string) (*net.UnixListener, error) {
	private, err := os.MkdirTemp(dir.Name(), ".sock-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	staged := filepath.Join(filepath.Base(private), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: short(dir, staged), Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // the name it would remove is not the final one
	if err = os.Chmod(short(dir, staged), 0o600); err == nil {
		err = os.Rename(short(dir, staged), short(dir, name))
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// short names an entry of an open directory in few bytes: a unix socket's
// address holds only 108, and run directories of tests and demos are longer.
func short(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

// Close removes the socket. It is not needed after Serve.
func (l *Listener) Close() error {
	err := l.net.Close()
	os.Remove(short(l.dir, filepath.Base(l.path)))
	l.dir.Close()
	return err
}

// Serve answers from src until ctx ends, then removes the socket and returns
// nil. It must be called at most once.
func (l *Listener) Serve(ctx context.Context, src Source) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+statusPath, func(w http.ResponseWriter, _ *http.Request) { reply(w, src.Status().normal()) })
	if e, ok := src.(Explainer); ok {
		mux.HandleFunc("GET "+whyPath, whyHandler(e))
	}
	srv := &http.Server{
		Handler:      mux,
		ReadTimeout:  ioTimeout,
		WriteTimeout: ioTimeout,
		IdleTimeout:  ioTimeout,
	}
	stopped := context.AfterFunc(ctx, func() { srv.Close() })
	err := srv.Serve(l.net)
	stopped()
	l.Close()
	if errors.Is(err, http.ErrServerClosed) && ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("control socket %s: %w", l.path, err)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// An error here is a client that went away: nobody to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// Serve binds the control socket at path and answers from src until ctx ends.
func Serve(ctx context.Context, path string, src Source) error {
	l, err := Listen(path)
	if err != nil {
		return err
	}
	return l.Serve(ctx, src)
}
