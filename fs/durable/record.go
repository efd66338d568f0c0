package durable

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A record is a file of two halves of the same size, each with a header line and
// data. The whole half with the greater number counts; it is the other one that is
// written next, where it stands. So a change of a record takes no new space, which
// a full disk does not have, and a write that is torn loses nothing.

const (
	recordLine = "dcfs-record %d %d %x\n" // number, length of the data, its sum with the number
	recordUnit = 4096                     // halves are a multiple of it
	recordHead = 128                      // more than a header has
)

// WriteRecord replaces the data of the record path: after a crash the old is there
// or the new. A record that exists takes no space on the disk, unless the data has
// more than twice the length of what was there first, or the filesystem copies on
// write. Writers at the same time have to exclude each other.
//
//	open, read, close NAME
//	open NAME; pwrite; fsync; close; fsync(DIR)
//	Dir.WriteFile                       when there is no such record yet
func (k Disk) WriteRecord(path string, data []byte, perm fs.FileMode) error {
	old, err := k.ReadFile(path, maxRecord)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	at, number, ok := halves(old)
	size := len(old) / 2
	if ok && recordHead+len(data) <= size {
		return k.inParent(path, func(d *Dir, name string) error {
			return d.overwrite(name, int64(size*(1-at)), half(number+1, data))
		})
	}
	size = (2*len(data) + recordHead + recordUnit - 1) / recordUnit * recordUnit
	whole := make([]byte, 2*size)
	copy(whole, half(number+1, data))
	return k.WriteFile(path, whole, perm)
}

// maxRecord bounds what is read of a record.
const maxRecord = 1 << 20

func (d *Dir) overwrite(name string, off int64, b []byte) error {
	f, err := d.Open(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, off); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return d.Sync() // what made the file may not have come to that
}

// ReadRecord returns the data of the record path. What a file that is no record
// holds is returned as it is.
func (k Disk) ReadRecord(path string) ([]byte, error) {
	b, err := k.ReadFile(path, maxRecord)
	if err != nil {
		return nil, err
	}
	at, _, ok := halves(b)
	if !ok {
		return b, nil
	}
	data, _, _ := readHalf(b[at*len(b)/2:][:len(b)/2])
	return data, nil
}

// halves returns which half of a record counts, and its number; not ok when none
// does.
func halves(b []byte) (at int, number uint64, ok bool) {
	if len(b) == 0 || len(b)%(2*recordUnit) != 0 {
		return 0, 0, false
	}
	for i := range 2 {
		if _, n, whole := readHalf(b[i*len(b)/2:][:len(b)/2]); whole && n > number {
			at, number, ok = i, n, true
		}
	}
	return at, number, ok
}

func half(number uint64, data []byte) []byte {
	return append(fmt.Appendf(nil, recordLine, number, len(data), sumOf(number, data)), data...)
}

func readHalf(b []byte) (data []byte, number uint64, ok bool) {
	line, _, found := bytes.Cut(b[:min(len(b), recordHead)], []byte("\n"))
	if !found {
		return nil, 0, false
	}
	var length int
	var sum []byte
	start := len(line) + 1
	n, err := fmt.Sscanf(string(b[:start]), recordLine, &number, &length, &sum)
	if err != nil || n != 3 || length < 0 || length > len(b)-start {
		return nil, 0, false
	}
	data = b[start : start+length]
	return data, number, bytes.Equal(sum, sumOf(number, data))
}

func sumOf(number uint64, data []byte) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", number, data))
	return sum[:]
}
