package agent

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"dcfs/cache/piece"
)

// written says which pieces were written to the staged files, durable or not,
// in a memory file that the successor of this process finds: what the kernel has
// outlives a process. Nothing is believed for it: each piece is hashed before
// its first use. It is safe for concurrent use, and a nil one notes nothing.
type written struct {
	file *os.File
	log  *slog.Logger

	mu  sync.Mutex
	set *piece.Set
}

// newWritten makes one for n pieces.
func newWritten(n int, log *slog.Logger) (*written, error) {
	fd, err := unix.MemfdCreate("dcfs-written", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory for what is written: %w", err)
	}
	f := os.NewFile(uintptr(fd), "dcfs-written")
	if err := f.Truncate(int64(n+7) / 8); err != nil {
		f.Close()
		return nil, fmt.Errorf("memory for what is written: %w", err)
	}
	return &written{file: f, log: log, set: piece.NewSet(n)}, nil
}

// findWritten takes over that of a process that died. It owns f.
func findWritten(f *os.File, n int, log *slog.Logger) (*written, error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, int64(n+7)/8+1))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("what a former process has written: %w", err)
	}
	set, ok := piece.SetFromBytes(b, n)
	if !ok {
		f.Close()
		return nil, fmt.Errorf("what a former process has written: %d bytes for %d pieces", len(b), n)
	}
	return &written{file: f, log: log, set: set}, nil
}

// pieces returns a copy of the set.
func (w *written) pieces() *piece.Set {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.set.Clone()
}

// note says that piece i was written, or that it is not there any more.
func (w *written) note(i piece.Index, there bool) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	changed := false
	if there {
		changed = w.set.Add(i)
	} else {
		changed = w.set.Remove(i)
	}
	if !changed {
		return
	}
	var b byte // as in a bitfield
	for j := range piece.Index(8) {
		if w.set.Has(i/8*8 + j) {
			b |= 0x80 >> j
		}
	}
	if _, err := w.file.WriteAt([]byte{b}, int64(i/8)); err != nil {
		w.log.Debug("a successor will not know of a piece", "piece", i, "cause", err)
	}
}

func (w *written) close() {
	if w != nil {
		w.file.Close()
	}
}
