package reuse

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNoFile says that a path of a source is not a regular file of it.
var errNoFile = errors.New("no regular file there")

// source is an old directory. It is for one goroutine.
type source struct {
	root    *os.Root
	dev     uint64 // other filesystems below it are not entered
	noClone bool

	// The last file stays open: the stream goes file by file. So does the
	// error when it could not be opened.
	path string
	file *os.File
	size int64
	err  error
}

func openSource(dir string) (*source, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	fi, err := root.Stat(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &source{root: root, dev: device(fi), err: errNoFile}, nil
}

func device(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Dev
	}
	return 0
}

func (s *source) close() error { return errors.Join(s.shut(), s.root.Close()) }

func (s *source) shut() (err error) {
	if s.file != nil {
		err = s.file.Close()
	}
	s.file, s.path, s.err = nil, "", errNoFile
	return err
}

// open returns the file at path and its size.
func (s *source) open(path string) (*os.File, int64, error) {
	if s.path != path {
		_ = s.shut()
		s.path = path
		s.file, s.size, s.err = s.openNew(path)
	}
	return s.file, s.size, s.err
}

// openNew opens nothing but regular files of the source's own filesystem. It
// looks before it opens, because opening a device can have effects, and again
// afterwards, because the directory may change in between.
func (s *source) openNew(path string) (*os.File, int64, error) {
	fi, err := s.root.Lstat(path)
	if err == nil {
		err = s.usable(fi)
	}
	if err != nil {
		return nil, 0, err
	}
	f, err := s.root.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, err
	}
	if fi, err = f.Stat(); err == nil {
		err = s.usable(fi)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, fi.Size(), nil
}

func (s *source) usable(fi fs.FileInfo) error {
	if !fi.Mode().IsRegular() || device(fi) != s.dev {
		return fmt.Errorf("%s: %w (%s)", fi.Name(), errNoFile, fi.Mode())
	}
	return nil
}

// readAt fills p from a file, or fails.
func (s *source) readAt(path string, p []byte, off int64) error {
	f, size, err := s.open(path)
	if err != nil {
		return err
	}
	if off < 0 || off > size-int64(len(p)) {
		return io.ErrUnexpectedEOF
	}
	if n, err := f.ReadAt(p, off); n < len(p) {
		return err
	}
	return nil
}
