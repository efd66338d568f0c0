package fs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// giveAway mounts a release at args[0] whose content never comes, hands the
// mount to whoever has the other end of descriptor 3, and waits to be killed.
func giveAway(args []string) error {
	tr := richTree()
	place, err := Prepare(context.Background(), args[0], nil)
	if err != nil {
		return err
	}
	m := newMemory(tr)
	m.close(0, tr.Total())
	s, err := Mount(context.Background(), Config{Tree: tr, Content: m, Place: place, Version: "held", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	h, err := s.Hold()
	if err != nil {
		return err
	}
	state, err := json.Marshal(h.State)
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(3, state, unix.UnixRights(int(h.Device.Fd()), int(h.Below.Fd())), nil, 0); err != nil {
		return err
	}
	for range 3 {
		<-m.waiting
	}
	fmt.Println("readers wait")
	select {}
}

// takeHeld starts a process that mounts at dir and returns what it gives away.
func takeHeld(t *testing.T, dir string) (Held, *exec.Cmd, *bufio.Scanner) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "pair")
	cmd := role(t, "give", dir)
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	buf, oob := make([]byte, 1<<16), make([]byte, unix.CmsgSpace(8))
	n, oobn, _, _, err := unix.Recvmsg(pair[0], buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		t.Fatalf("no mount was given away: %v", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	h := Held{Device: os.NewFile(uintptr(fds[0]), "fuse"), Below: os.NewFile(uintptr(fds[1]), "below")}
	if err := json.Unmarshal(buf[:n], &h.State); err != nil {
		t.Fatal(err)
	}
	return h, cmd, bufio.NewScanner(out)
}

// TestResume kills a process while readers wait for it. A successor answers
// them, and serves what comes afterwards until the mount ends.
func TestResume(t *testing.T) {
	needFUSE(t)
	dir := t.TempDir()
	t.Cleanup(func() { unmountAll(t, dir) })
	h, cmd, lines := takeHeld(t, dir)
	defer h.Close()
	tr := richTree()
	content := newMemory(tr)
	answers := make(chan error, 3)
	for _, name := range []string{"dir/big", "dir/small", "zz-linked"} {
		native := filepath.Join(t.TempDir(), "native")
		if err := os.WriteFile(native, content.file(tr, name), 0o644); err != nil {
			t.Fatal(err)
		}
		want := run(t, "read", native, "0", "1000000")
		cmd := role(t, "read", filepath.Join(dir, name), "0", "1000000")
		go func() {
			got, err := cmd.Output()
			if err == nil && string(got) != want {
				err = fmt.Errorf("%s reads %.100q, want %.100q", name, got, want)
			}
			answers <- err
		}()
	}
	if !lines.Scan() {
		t.Fatal("no reader reached it")
	}
	cmd.Process.Kill()
	cmd.Wait()
	select {
	case err := <-answers:
		t.Fatalf("a reader did not wait for a successor: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	cfg := Config{Tree: tr, Content: content, Version: "held"}
	s, err := Resume(cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		select {
		case err := <-answers:
			if err != nil {
				t.Errorf("a reader: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a reader still waits")
		}
	}
	if out := run(t, "list", dir); strings.Count(out, "\n") != len(expect(tr, content)) {
		t.Errorf("the tree: %s", out)
	}
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	if err := s.Unmount(ctx); err != nil {
		t.Error(err)
	}
	if _, err := Resume(cfg, h); !errors.Is(err, ErrGone) {
		t.Errorf("resuming a mount that has ended: %v", err)
	}
}
