package service

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// manager listens as systemd does and returns what it is told.
func manager(t *testing.T) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	said := make(chan string, 64)
	go func() { // ends with conn
		defer close(said)
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			said <- string(buf[:n])
		}
	}()
	return said
}

func expect(t *testing.T, said <-chan string, want string) {
	t.Helper()
	select {
	case got := <-said:
		if got != want {
			t.Fatalf("it was told %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("it was not told %q", want)
	}
}

func TestManager(t *testing.T) {
	said := manager(t)
	t.Setenv("WATCHDOG_USEC", "90000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	m := Find(slog.New(slog.DiscardHandler))
	m.Status("looking")
	m.Status("looking")
	m.Ready()
	m.Ready()
	m.Alive()
	m.Alive() // too soon
	expect(t, said, "STATUS=looking")
	expect(t, said, "READY=1")
	expect(t, said, "WATCHDOG=1")
	time.Sleep(m.every)
	m.Alive()
	m.Stopping()
	expect(t, said, "WATCHDOG=1")
	expect(t, said, "STOPPING=1")
}

// Without a manager, and with one that has gone, nothing happens.
func TestNoManager(t *testing.T) {
	for _, socket := range []string{"", filepath.Join(t.TempDir(), "gone")} {
		t.Setenv("NOTIFY_SOCKET", socket)
		for _, m := range []*Manager{nil, Find(slog.New(slog.DiscardHandler))} {
			m.Ready()
			m.Status("x")
			m.Alive()
			m.Stopping()
		}
	}
}
