package materialise

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
)

// Receipt says that a directory is a release, whole and verified. It is kept
// in STATE/receipts, one per destination.
type Receipt struct {
	Schema    int       `json:"schema"` // 1
	Version   string    `json:"version"`
	InfoHash  string    `json:"infohash"` // 40 hex digits
	Dest      string    `json:"dest"`     // absolute, symlinks in the parent resolved
	Dev       uint64    `json:"dev"`
	Ino       uint64    `json:"ino"`
	Born      int64     `json:"born,omitempty"` // birth time of the directory, ns; 0 where there is none
	Completed time.Time `json:"completed"`
}

// identity tells one directory from every other.
type identity struct {
	dev, ino uint64
	born     int64
}

// identify looks at path itself. It asks no daemon behind a network or FUSE
// filesystem anew (AT_STATX_DONT_SYNC).
func identify(disk durable.Disk, path string) (identity, error) {
	var st unix.Statx_t
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
	err := disk.Look("statx", path, func() error {
		return unix.Statx(unix.AT_FDCWD, path, flags, unix.STATX_INO|unix.STATX_TYPE|unix.STATX_BTIME, &st)
	})
	if err != nil {
		return identity{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return identity{}, &fs.PathError{Op: "stat", Path: path, Err: unix.ENOTDIR}
	}
	id := identity{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return id, nil
}

// is holds when r was written for this directory. An inode number is used
// again soon after its directory was removed, and a device number may change
// with every boot; the birth time settles both where the filesystem has one.
func (id identity) is(r Receipt) bool {
	if id.born != 0 && r.Born != 0 {
		return id.ino == r.Ino && id.born == r.Born
	}
	return id.ino == r.Ino && id.dev == r.Dev
}

func newReceipt(dest, version string, infoHash [20]byte, id identity) Receipt {
	return Receipt{
		Schema: 1, Version: version, InfoHash: hex.EncodeToString(infoHash[:]), Dest: dest,
		Dev: id.dev, Ino: id.ino, Born: id.born, Completed: time.Now().UTC(),
	}
}

func receiptPath(state, dest string) string {
	sum := sha256.Sum256([]byte(dest))
	return filepath.Join(state, "receipts", hex.EncodeToString(sum[:16])+".json")
}

// WriteReceipt durably records that the directory dest, as it is now, is the
// release. Finish does it by itself; this is for a tree that came whole some
// other way, as into the origin's store.
func WriteReceipt(state, dest, version string, infoHash [20]byte) error {
	abs, err := durable.Resolve(dest)
	if err != nil {
		return fmt.Errorf("receipt for %s: %w", dest, err)
	}
	id, err := identify(durable.Disk{}, abs)
	if err != nil {
		return fmt.Errorf("receipt for %s: %w", dest, err)
	}
	return writeReceipt(durable.Disk{}, state, newReceipt(abs, version, infoHash, id))
}

func writeReceipt(disk durable.Disk, state string, r Receipt) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	path := receiptPath(state, r.Dest)
	if err := disk.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("receipt for %s: %w", r.Dest, err)
	}
	if err := disk.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("receipt for %s: %w", r.Dest, err)
	}
	return nil
}

// ReadReceipt returns the receipt that was written for the path dest, whether
// or not the directory is still the one that it was written for; Lookup tells.
// fs.ErrNotExist says that there is none.
func ReadReceipt(state, dest string) (Receipt, error) {
	abs, err := durable.Resolve(dest)
	if err != nil {
		return Receipt{}, fmt.Errorf("receipt for %s: %w", dest, err)
	}
	b, err := os.ReadFile(receiptPath(state, abs))
	if err != nil {
		return Receipt{}, fmt.Errorf("receipt for %s: %w", dest, err)
	}
	var r Receipt
	if err := json.Unmarshal(b, &r); err != nil {
		return Receipt{}, fmt.Errorf("receipt for %s: %s is damaged, remove it: %w", dest, receiptPath(state, abs), err)
	}
	if r.Schema != 1 {
		return Receipt{}, fmt.Errorf("receipt for %s: schema %d is of a newer dcfs: use that", dest, r.Schema)
	}
	return r, nil
}

// Lookup returns the receipt of the release that dest is, and false when it is
// none that this host knows as complete: no receipt, no directory, or another
// directory than the one that was finished.
func Lookup(state, dest string) (Receipt, bool, error) {
	r, err := ReadReceipt(state, dest)
	if errors.Is(err, fs.ErrNotExist) {
		return Receipt{}, false, nil
	}
	if err != nil {
		return Receipt{}, false, err
	}
	id, err := identify(durable.Disk{}, r.Dest)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return Receipt{}, false, nil
	}
	return r, err == nil && id.is(r), err
}

// Complete reports whether dest is the release infoHash, whole and verified.
func Complete(state, dest string, infoHash [20]byte) (bool, error) {
	r, ok, err := Lookup(state, dest)
	return ok && r.InfoHash == hex.EncodeToString(infoHash[:]), err
}

// RemoveReceipt forgets the receipt of the path dest. None is no error.
func RemoveReceipt(state, dest string) error {
	abs, err := durable.Resolve(dest)
	if err != nil {
		return fmt.Errorf("receipt for %s: %w", dest, err)
	}
	err = durable.Disk{}.RemoveAll(receiptPath(state, abs))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
