package agent

import (
	"log/slog"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"dcfs/cache/piece"
)

// TestWritten: a successor finds the pieces that were written and not lost, and
// refuses what is not of its release.
func TestWritten(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	w, err := newWritten(21, log)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for _, i := range []piece.Index{0, 7, 8, 20, 3, 20} {
		w.note(i, true)
	}
	w.note(7, false)
	w.note(9, false)
	inherit := func(n int) (*written, error) {
		fd, err := unix.FcntlInt(w.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return findWritten(os.NewFile(uintptr(fd), ""), n, log)
	}
	next, err := inherit(21)
	if err != nil {
		t.Fatal(err)
	}
	defer next.close()
	next.note(1, true)
	for _, x := range []*written{next, w} {
		want := []piece.Index{0, 3, 8, 20}
		if x == next {
			want = []piece.Index{0, 1, 3, 8, 20}
		}
		if got := slices.Collect(x.pieces().All()); !slices.Equal(got, want) {
			t.Errorf("pieces %v, want %v", got, want)
		}
	}
	if _, err := inherit(25); err == nil {
		t.Error("the pieces of 21 pass for those of 25")
	}
}
