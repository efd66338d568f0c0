package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"

	"dcfs/fs/tree"
)

// source reads the payload stream from the scanned directory, forwards only.
// It is for one goroutine.
type source struct {
	root  *os.Root
	tree  *tree.Tree
	check func(path string, info fs.FileInfo) error

	// The directory of the last file stays open: the stream goes directory by
	// directory, and opening by one name is cheaper than by a path.
	dirID tree.ID
	dir   *os.File

	fileID tree.ID
	file   *os.File
}

func newSource(cfg Config) *source {
	return &source{root: cfg.Root, tree: cfg.Tree, check: cfg.Check, dirID: tree.None, fileID: tree.None}
}

func (s *source) close() {
	if s.file != nil {
		s.file.Close()
	}
	if s.dir != nil {
		s.dir.Close()
	}
	s.file, s.dir, s.fileID, s.dirID = nil, nil, tree.None, tree.None
}

// fill reads the stream from off into p, which lies in it whole.
func (s *source) fill(p []byte, off int64) error {
	for x := range s.tree.Extents(off, int64(len(p))) {
		run := p[x.Start-off:][:x.Length]
		if x.File == tree.None {
			clear(run)
		} else if err := s.read(x, run); err != nil {
			return err
		}
	}
	return nil
}

// read reads the extent x of a file into p, and checks the file at its end.
func (s *source) read(x tree.Extent, p []byte) error {
	if s.fileID != x.File {
		if err := s.open(x.File); err != nil {
			return err
		}
	}
	if _, err := s.file.ReadAt(p, x.Offset); errors.Is(err, io.EOF) {
		return s.changed(x.File, "it is shorter now")
	} else if err != nil {
		return fmt.Errorf("reading %q: %w", s.tree.Path(x.File), err)
	}
	if _, size := s.tree.Span(x.File); x.Offset+x.Length < size {
		return nil
	}
	err := s.examine(x.File)
	s.file.Close()
	s.file, s.fileID = nil, tree.None
	return err
}

// open makes id the current file. The name is opened without following a
// symlink and without waiting for a FIFO.
func (s *source) open(id tree.ID) error {
	if s.file != nil {
		s.file.Close()
		s.file, s.fileID = nil, tree.None
	}
	if err := s.enter(s.tree.Parent(id)); err != nil {
		return s.gone(id, err)
	}
	fd, err := openat(int(s.dir.Fd()), s.tree.Name(id))
	if err != nil {
		return s.gone(id, err)
	}
	s.file, s.fileID = os.NewFile(uintptr(fd), s.tree.Name(id)), id
	return s.examine(id)
}

func openat(dir int, name string) (fd int, err error) {
	for {
		fd, err = unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// enter makes id the current directory.
func (s *source) enter(id tree.ID) error {
	if s.dirID == id {
		return nil
	}
	dir, err := s.root.OpenFile(s.tree.Path(id), os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	if s.dir != nil {
		s.dir.Close()
	}
	s.dir, s.dirID = dir, id
	return nil
}

// examine holds the open file against what was scanned.
func (s *source) examine(id tree.ID) error {
	info, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("reading %q: %w", s.tree.Path(id), err)
	}
	return s.compare(id, info)
}

func (s *source) compare(id tree.ID, info fs.FileInfo) error {
	e := s.tree.Entry(id)
	switch {
	case !info.Mode().IsRegular():
		return s.changed(id, "it is no file any more")
	case info.Size() != e.Size:
		return s.changed(id, fmt.Sprintf("it had %d bytes and has %d", e.Size, info.Size()))
	case s.check != nil:
		return s.check(s.tree.Path(id), info)
	case info.ModTime().UnixNano() != e.Mtime:
		return s.changed(id, "its modification time is another")
	}
	return nil
}

// checkEmpties checks the files that have no content and therefore no place in
// the stream, and names each to visit.
func (s *source) checkEmpties(visit func(tree.ID)) error {
	for id := tree.ID(0); int(id) < s.tree.Len(); id++ {
		if s.tree.Kind(id) != tree.File || s.tree.Inode(id) != id {
			continue
		}
		if _, size := s.tree.Span(id); size > 0 {
			continue
		}
		info, err := s.root.Lstat(s.tree.Path(id))
		if err != nil {
			return s.gone(id, err)
		}
		if err := s.compare(id, info); err != nil {
			return err
		}
		visit(id)
	}
	return nil
}

// gone tells a file that could not be opened because it is another or none now
// from one that could not be opened for other reasons.
func (s *source) gone(id tree.ID, err error) error {
	for _, e := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENXIO} {
		if errors.Is(err, e) {
			return s.changed(id, err.Error())
		}
	}
	return fmt.Errorf("reading %q: %w", path.Join(s.root.Name(), s.tree.Path(id)), err)
}

func (s *source) changed(id tree.ID, how string) error {
	return fmt.Errorf("%q %w: %s: run again when nothing writes to the directory", s.tree.Path(id), tree.ErrChanged, how)
}

// Reader reads the payload stream, padding included, with the same checks as
// Hash. It is for one goroutine and must be closed.
type Reader struct {
	ctx context.Context
	src *source
	off int64
	err error
}

// NewReader returns a reader of the whole stream, Tree.Total bytes long. It
// uses Root, Tree and Check. Reads fail once ctx ends.
func NewReader(ctx context.Context, cfg Config) *Reader {
	return &Reader{ctx: ctx, src: newSource(cfg)}
}

// Read fills p as far as the stream goes. An error that wraps tree.ErrChanged
// names the file; what was read before it is worthless, and every later Read
// fails alike.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err == nil {
		r.err = context.Cause(r.ctx)
	}
	if r.err != nil {
		return 0, r.err
	}
	n := min(int64(len(p)), r.src.tree.Total()-r.off)
	if n == 0 && len(p) > 0 {
		if r.err = r.src.checkEmpties(func(tree.ID) {}); r.err == nil {
			r.err = io.EOF
		}
		return 0, r.err
	}
	if r.err = r.src.fill(p[:n], r.off); r.err != nil {
		return 0, r.err
	}
	r.off += n
	return int(n), nil
}

// Close lets go of the open files. It never fails.
func (r *Reader) Close() error {
	r.src.close()
	if r.err == nil {
		r.err = fs.ErrClosed
	}
	return nil
}
