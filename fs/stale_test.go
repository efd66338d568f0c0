package fs

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// deadMount leaves the mount of a killed process at dir.
func deadMount(t *testing.T, dir string) {
	t.Helper()
	p := start(t, role(t, "serve", dir))
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait()
}

// bind mounts a directory with a file in it over dir.
func bind(t *testing.T, from, dir string) {
	t.Helper()
	if err := os.MkdirAll(from, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "file"), []byte("copy"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(from, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	// As a handover makes it: from below what is shared nothing can be moved.
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}

// TestUncover: dead mounts below a copy go, and who has a file of the copy open
// keeps it; a live one below stays.
func TestUncover(t *testing.T) {
	needFUSE(t)
	top := t.TempDir()
	mp := filepath.Join(top, "mp")
	if err := os.Mkdir(mp, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountAll(t, mp) })
	deadMount(t, mp)
	bind(t, filepath.Join(top, "copy"), mp)
	open, err := os.Open(filepath.Join(mp, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()

	_, covered, err := Stale(t.Context())
	if err != nil || !slices.Contains(covered, mp) {
		t.Fatalf("covered: %v, %v", covered, err)
	}
	if n, err := Uncover(t.Context(), mp, true, nil); n != 1 || err != nil || len(mountsAt(t, mp)) != 2 {
		t.Fatalf("a dry look: %d, %v, %v", n, err, mountsAt(t, mp))
	}
	if n, err := Uncover(t.Context(), mp, false, slog.New(slog.DiscardHandler)); n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if got := mountsAt(t, mp); len(got) != 1 {
		t.Fatalf("mounts: %v", got)
	}
	b := make([]byte, 4)
	if _, err := open.ReadAt(b, 0); err != nil || string(b) != "copy" {
		t.Errorf("the file that was open: %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(mp, "file")); err != nil || string(b) != "copy" {
		t.Errorf("the path: %q, %v", b, err)
	}
	if n, err := Uncover(t.Context(), mp, false, nil); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
}

// TestUncoverLive: what a live process has below the copy is not touched.
func TestUncoverLive(t *testing.T) {
	needFUSE(t)
	top := t.TempDir()
	mp := filepath.Join(top, "mp")
	if err := os.Mkdir(mp, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountAll(t, mp) })
	start(t, role(t, "serve", mp))
	bind(t, filepath.Join(top, "copy"), mp)
	if n, err := Uncover(t.Context(), mp, false, nil); n != 0 || err != nil || len(mountsAt(t, mp)) != 2 {
		t.Errorf("%d, %v, %v", n, err, mountsAt(t, mp))
	}
	if b, err := os.ReadFile(filepath.Join(mp, "file")); err != nil || string(b) != "copy" {
		t.Errorf("the path: %q, %v", b, err)
	}
}

// TestDetachDead: only the mount that was asked goes.
func TestDetachDead(t *testing.T) {
	needFUSE(t)
	mp := filepath.Join(t.TempDir(), "mp")
	if err := os.Mkdir(mp, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountAll(t, mp) })
	ctx := context.Background()
	deadMount(t, mp)
	if dead, _, err := Stale(ctx); err != nil || !slices.Contains(dead, mp) {
		t.Fatalf("dead: %v, %v", dead, err)
	}
	if dead, err := detachDead(ctx, mp); !dead || err != nil || len(mountsAt(t, mp)) != 0 {
		t.Fatalf("%t, %v, %v", dead, err, mountsAt(t, mp))
	}
	start(t, role(t, "serve", mp))
	if dead, err := detachDead(ctx, mp); dead || err != nil || len(mountsAt(t, mp)) != 1 {
		t.Errorf("a live one: %t, %v, %v", dead, err, mountsAt(t, mp))
	}
	if n, err := CleanStale(ctx, mp, nil); n != 0 || err != nil || len(mountsAt(t, mp)) != 1 {
		t.Errorf("a live one: %d, %v", n, err)
	}
}
