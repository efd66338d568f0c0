package durable

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Map moves data from the heap into a file without a name below dir, and
// returns it as the memory of that file, read-only: the kernel can then drop
// the pages that nobody looks at, and reads them back when somebody does. The
// file and the mapping are there until the process ends, because nobody knows
// who has a part of it by then; use it for what is as long-lived.
//
//	open(dir, O_TMPFILE); write; mmap(PROT_READ, MAP_SHARED); close
func Map(dir string, data []byte) ([]byte, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("a file without a name in %s: %w", dir, err)
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return nil, err
	}
	out, err := unix.Mmap(fd, 0, len(data), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap in %s: %w", dir, err)
	}
	return out, nil
}

// Unload drops the pages of what Map returned from this process's memory; they
// come back when they are looked at.
func Unload(mapped []byte) { _ = unix.Madvise(mapped, unix.MADV_DONTNEED) }
