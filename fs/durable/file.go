package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// File is an open file whose calls the hooks of its Disk are told of.
type File struct {
	*os.File
	fd   int
	disk Disk
}

// Read reads on from where the last Read or Write ended.
func (f *File) Read(p []byte) (n int, err error) {
	return f.read(func() (int, error) { return f.File.Read(p) })
}

// ReadAt fills p from off; see io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	return f.read(func() (int, error) { return f.File.ReadAt(p, off) })
}

// read keeps io.EOF as it is.
func (f *File) read(call func() (int, error)) (n int, err error) {
	if f.disk.BeforeLook == nil {
		return call()
	}
	asked := f.disk.Look("read", f.Name(), func() error { n, err = call(); return nil })
	if asked != nil {
		return 0, asked
	}
	return n, err
}

// Write writes p behind what the last Read or Write ended at.
//
//	write(f), again for the rest as long as the kernel takes only a part
func (f *File) Write(p []byte) (int, error) {
	return f.write(p, func(p []byte, _ int) (int, error) { return unix.Write(f.fd, p) })
}

// WriteAt writes p at off.
//
//	pwrite(f), again for the rest as long as the kernel takes only a part
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, func(p []byte, done int) (int, error) { return unix.Pwrite(f.fd, p, off+int64(done)) })
}

func (f *File) write(p []byte, call func(p []byte, done int) (int, error)) (done int, err error) {
	for done < len(p) {
		n, err := f.writeOnce(p[done:], func(p []byte) (int, error) { return call(p, done) })
		done += max(n, 0)
		if err == nil && n <= 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return done, pathError("write", f.Name(), err)
		}
	}
	runtime.KeepAlive(f) // or a finalizer would close the descriptor
	return done, nil
}

// writeOnce makes one call. A hook that cuts it short has it write a half.
func (f *File) writeOnce(p []byte, call func([]byte) (int, error)) (n int, err error) {
	err = ask(f.disk.Before, "write", f.Name(), func() (err error) { n, err = call(p); return err })
	if errors.Is(err, ErrCutShort) {
		err = retry(func() (err error) { n, err = call(p[:(len(p)+1)/2]); return err })
	}
	return n, err
}

// Truncate makes the file size bytes long.
func (f *File) Truncate(size int64) error {
	return f.change("truncate", func() error { return f.File.Truncate(size) })
}

// PunchHole frees the blocks of n bytes from off; they read as zeros.
//
//	fallocate(f, PUNCH_HOLE|KEEP_SIZE)
func (f *File) PunchHole(off, n int64) error {
	return f.change("punch", func() error {
		return unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

// Clone makes the file one of src's blocks.
//
//	ioctl(f, FICLONE, src)
func (f *File) Clone(src *os.File) error {
	return f.change("clone", func() error { return unix.IoctlFileClone(f.fd, int(src.Fd())) })
}

// Chmod sets the permissions.
func (f *File) Chmod(perm fs.FileMode) error {
	return f.change("fchmod", func() error { return f.File.Chmod(perm) })
}

// Sync makes the content last.
func (f *File) Sync() error { return f.change("fsync", f.File.Sync) }

func (f *File) change(op string, call func() error) error {
	err := f.disk.Change(op, f.Name(), call)
	runtime.KeepAlive(f)
	return err
}

// Stat describes the file.
func (f *File) Stat() (fi fs.FileInfo, err error) {
	err = f.disk.Look("fstat", f.Name(), func() (err error) { fi, err = f.File.Stat(); return err })
	return fi, err
}

// Close gives the descriptor back, also when it returns an error.
func (f *File) Close() error {
	return errors.Join(f.disk.Look("close", f.Name(), func() error { return nil }), f.File.Close())
}
