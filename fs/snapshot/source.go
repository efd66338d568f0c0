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

// source reads the payload stream from the scanned directory, best forwards. It
// is for one goroutine.
//
// It works with bare descriptors: half a million small files are opened, read,
// looked at and closed with one system call each, where an os.File takes two
// more to find out that a regular file cannot be polled.
type source struct {
	root  *os.Root
	tree  *tree.Tree
	check func(path string, info fs.FileInfo) error

	// The directory of the last file stays open: the stream goes directory by
	// directory, and opening by one name is cheaper than by a path.
	dirID tree.ID
	dir   *os.File

	file  handle // the file that goes on behind what was filled last
	ended handle // the file that came from before that and ended in it
}

// handle is an open file; id is None when there is none.
type handle struct {
	id tree.ID
	fd int
}

func (f *handle) close() {
	if f.id != tree.None {
		unix.Close(f.fd)
	}
	f.id = tree.None
}

func newSource(cfg Config) *source {
	return &source{root: cfg.Root, tree: cfg.Tree, check: cfg.Check, dirID: tree.None,
		file: handle{id: tree.None}, ended: handle{id: tree.None}}
}

func (s *source) close() {
	s.file.close()
	s.ended.close()
	if s.dir != nil {
		s.dir.Close()
	}
	s.dir, s.dirID = nil, tree.None
}

// fill reads the stream from off into p, which lies in it whole. Files that
// lie in p whole are checked; for one that ends in p and began before it,
// settle does that, once all of it has been read.
func (s *source) fill(p []byte, off int64) error {
	for x := range s.tree.Extents(off, int64(len(p))) {
		run := p[x.Start-off:][:x.Length]
		if x.File == tree.None {
			clear(run)
			continue
		}
		var err error
		if _, size := s.tree.Span(x.File); x.Length == size {
			err = s.readWhole(x.File, run)
		} else {
			err = s.readPart(x, run, size)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settle checks the file that ended in what was filled last, if it began
// before that.
func (s *source) settle() error {
	if s.ended.id == tree.None {
		return nil
	}
	defer s.ended.close()
	return s.examine(s.ended)
}

// readWhole reads a file at once. One look at it is enough, after the last
// byte: a change at any time since the scan shows then.
func (s *source) readWhole(id tree.ID, p []byte) error {
	f, err := s.open(id)
	if err != nil {
		return err
	}
	defer f.close()
	if err := s.pread(f, p, 0); err != nil {
		return err
	}
	return s.examine(f)
}

// readPart reads a part of a file that is larger than what is filled at once.
func (s *source) readPart(x tree.Extent, p []byte, size int64) error {
	if s.file.id != x.File {
		s.file.close()
		f, err := s.open(x.File)
		if err != nil {
			return err
		}
		s.file = f
		if err := s.examine(f); err != nil {
			return err
		}
	}
	if err := s.pread(s.file, p, x.Offset); err != nil {
		return err
	}
	if x.Offset+x.Length == size {
		s.ended.close()
		s.ended, s.file = s.file, handle{id: tree.None}
	}
	return nil
}

// pread fills p from off of a file. When it cannot, that the file is another
// now says more than the error.
func (s *source) pread(f handle, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pread(f.fd, p, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			if changed := s.examine(f); changed != nil {
				return changed
			}
			return fmt.Errorf("reading %q: %w", s.tree.Path(f.id), err)
		case n == 0:
			return s.changed(f.id, "it is shorter now")
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// open opens a file by its name, without following a symlink and without
// waiting for a FIFO.
func (s *source) open(id tree.ID) (handle, error) {
	if err := s.enter(s.tree.Parent(id)); err != nil {
		return handle{}, s.gone(id, err)
	}
	fd, err := openat(int(s.dir.Fd()), s.tree.Name(id))
	if err != nil {
		return handle{}, s.gone(id, err)
	}
	return handle{id, fd}, nil
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

// examine holds an open file against what was scanned.
func (s *source) examine(f handle) error {
	info := stat{name: s.tree.Name(f.id)}
	if err := syscall.Fstat(f.fd, &info.st); err != nil {
		return fmt.Errorf("reading %q: %w", s.tree.Path(f.id), err)
	}
	return s.compare(f.id, &info)
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
	if r.err = r.src.fill(p[:n], r.off); r.err == nil {
		r.err = r.src.settle()
	}
	if r.err != nil {
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
