package materialise

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
)

// Leftover is a stage that stands beside the destination which it is to become.
type Leftover struct {
	Path     string    // the stage
	Dest     string    // what RemoveStage takes
	InfoHash string    // 40 hex digits; empty when nothing was recorded yet
	Touched  time.Time // when a process last had it, or recorded progress
}

// Leftovers lists the stages in a directory. Some of them may be in use: only
// RemoveStage can tell. No directory holds none.
func Leftovers(dir string) ([]Leftover, error) {
	d, err := durable.Disk{}.OpenDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Names()
	if err != nil {
		return nil, err
	}
	var out []Leftover
	for _, name := range names {
		base, isStage := strings.CutSuffix(name, ".dcfs")
		base, hidden := strings.CutPrefix(base, ".")
		if !isStage || !hidden || base == "" {
			continue
		}
		if l, ok := leftover(d, name); ok {
			l.Dest = filepath.Join(d.Path(), base)
			out = append(out, l)
		}
	}
	return out, nil
}

// leftover looks at the stage name, and returns false for what is none.
func leftover(parent *durable.Dir, name string) (Leftover, bool) {
	dir, err := parent.Sub(name)
	if err != nil {
		return Leftover{}, false
	}
	defer dir.Close()
	l := Leftover{Path: dir.Path()}
	st, err := dir.Stat()
	if err != nil {
		return l, false
	}
	l.Touched = mtime(st)
	known := false
	for _, file := range []string{"have", "lock"} {
		if st, err := dir.Lstat(file); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			known = true
			if t := mtime(st); t.After(l.Touched) {
				l.Touched = t
			}
		}
	}
	l.InfoHash = recordedRelease(dir)
	return l, known
}

// recordedRelease is the release that the stage is of, by its record.
func recordedRelease(dir *durable.Dir) string {
	f, err := dir.Open("have", os.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return ""
	}
	b, err := io.ReadAll(io.LimitReader(f, maxHave))
	if err != nil {
		return ""
	}
	of, _, err := decodeHave(b)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(of[:])
}

func mtime(st unix.Stat_t) time.Time { return time.Unix(st.Mtim.Sec, st.Mtim.Nsec) }

// Recorded lists all receipts that can be read, also those whose directory is
// not there any more or is another.
func Recorded(state string) ([]Receipt, error) {
	dir := filepath.Join(state, "receipts")
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Receipt
	for _, e := range names {
		if r, ok := readRecorded(state, filepath.Join(dir, e.Name())); ok {
			out = append(out, r)
		}
	}
	return out, nil
}

func readRecorded(state, path string) (r Receipt, ok bool) {
	if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() || fi.Size() > maxReceipt {
		return r, false
	}
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &r) != nil || r.Schema != 1 || path != receiptPath(state, r.Dest) {
		return r, false
	}
	return r, true
}

// Gone reports whether a receipt is of nothing: its directory is not there, on
// the same filesystem still, and no stage is about to become it.
func Gone(r Receipt) bool {
	var st unix.Stat_t
	parent := filepath.Dir(r.Dest)
	if unix.Stat(parent, &st) != nil || st.Dev != r.Dev {
		return false // perhaps it is only not mounted now
	}
	for _, path := range []string{r.Dest, filepath.Join(parent, stageName(r.Dest))} {
		if err := unix.Lstat(path, &st); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}
