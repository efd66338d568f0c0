package service

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// keeping is a service manager with a store: it takes and drops descriptors as
// systemd does, and starts services with them.
type keeping struct {
	conn  *net.UnixConn
	names []string
	files []*os.File
}

func newKeeping(t *testing.T) *keeping {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &keeping{conn: conn}
	t.Cleanup(func() { conn.Close(); closeAll(m.files) })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("FDSTORE", "8")
	return m
}

// listen takes what has been sent.
func (m *keeping) listen(t *testing.T) {
	t.Helper()
	raw, err := m.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		err := raw.Control(func(fd uintptr) {
			text, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
			n, c, _, _, err := unix.Recvmsg(int(fd), text, control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
			if more = err == nil; more {
				m.told(t, strings.Split(string(text[:n]), "\n"), control[:c])
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (m *keeping) told(t *testing.T, lines []string, control []byte) {
	t.Helper()
	name := strings.TrimPrefix(lines[len(lines)-1], "FDNAME=")
	switch lines[0] {
	case "FDSTORE=1":
		messages, err := unix.ParseSocketControlMessage(control)
		if err != nil || len(messages) != 1 {
			t.Fatalf("%q comes with %d messages, %v", lines, len(messages), err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			t.Fatalf("%q comes with %d files, %v", lines, len(fds), err)
		}
		m.names, m.files = append(m.names, name), append(m.files, os.NewFile(uintptr(fds[0]), name))
	case "FDSTOREREMOVE=1":
		for i := slices.Index(m.names, name); i >= 0; i = slices.Index(m.names, name) {
			m.files[i].Close()
			m.names, m.files = slices.Delete(m.names, i, i+1), slices.Delete(m.files, i, i+1)
		}
	default:
		t.Fatalf("it was told %q", lines)
	}
}

// restart runs the test binary as the restarted service, which says what it
// finds and keeps another text, if any.
func (m *keeping) restart(t *testing.T, text string) string {
	t.Helper()
	m.listen(t)
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run TestRestarted`, os.Args[0])
	cmd.Env = append(os.Environ(), "DCFS_SERVICE_TEST=x"+text,
		"LISTEN_FDNAMES="+strings.Join(m.names, ":"), fmt.Sprintf("LISTEN_FDS=%d", len(m.files)))
	cmd.ExtraFiles, cmd.Stderr = m.files, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	m.listen(t)
	said, _, _ := strings.Cut(string(out), "\n")
	return said
}

// TestRestarted is the restarted service.
func TestRestarted(t *testing.T) {
	role, ok := strings.CutPrefix(os.Getenv("DCFS_SERVICE_TEST"), "x")
	if !ok {
		return // it is a part of TestStore, in another process
	}
	s, text, files := OpenStore(slog.New(slog.DiscardHandler))
	fmt.Printf("%t %q", s != nil, text)
	for _, f := range files {
		b := make([]byte, 10)
		n, _ := f.ReadAt(b, 0)
		fmt.Printf(" %q", b[:n])
	}
	fmt.Println()
	if role != "" {
		if err := s.Keep([]byte(role), files); err != nil {
			t.Error(err)
		}
	}
}

func TestStore(t *testing.T) {
	m := newKeeping(t)
	var files []*os.File
	for _, text := range []string{"one", "two"} {
		f, err := os.Create(filepath.Join(t.TempDir(), text))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	expect := func(want, keep string) {
		t.Helper()
		if got := m.restart(t, keep); got != want {
			t.Errorf("a restarted service finds %s, want %s", got, want)
		}
	}
	expect(`true ""`, "")
	s, _, _ := OpenStore(slog.New(slog.DiscardHandler))
	for _, text := range []string{"first", "second", "second"} {
		if err := s.Keep([]byte(text), files); err != nil {
			t.Fatal(err)
		}
		expect(fmt.Sprintf(`true %q "one" "two"`, text), "")
	}
	expect(`true "second" "one" "two"`, "third")
	if want := []string{"dcfs-text", "dcfs-1-of-2", "dcfs-0-of-2"}; !slices.Equal(m.names, want) {
		t.Errorf("stored are %q, want %q", m.names, want)
	}
	// A process was killed while it wrote.
	if st, err := m.files[0].Stat(); err != nil {
		t.Fatal(err)
	} else if _, err := m.files[0].WriteAt([]byte("fou"), st.Size()); err != nil {
		t.Fatal(err)
	}
	expect(`true "third" "one" "two"`, "fourth")
	expect(`true "fourth" "one" "two"`, "")
	if err := s.Replace([]byte("fifth"), files); err != nil {
		t.Fatal(err)
	}
	expect(`true "fifth" "one" "two"`, "")

	// One was killed while it stored.
	m.files[2].Close()
	m.names, m.files = m.names[:2], m.files[:2]
	expect(`true ""`, "")
	if len(m.names) > 0 {
		t.Errorf("what is of no use stays in the store: %q", m.names)
	}

	t.Setenv("FDSTORE", "")
	expect(`false ""`, "")
}
