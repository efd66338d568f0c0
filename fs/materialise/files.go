package materialise

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

const (
	// largeFile is the size from which on a file's descriptor is kept: a file
	// that lies in many pieces is opened once, one of many in a piece is
	// opened, used and closed.
	largeFile = 1 << 20

	maxOpenDirs  = 256
	maxOpenFiles = 64 // for reading, and as many for writing
)

// files is a directory tree seen as the payload stream of its release.
type files struct {
	tree *tree.Tree
	disk durable.Disk

	mu     sync.RWMutex // held for reading by everybody who uses what follows
	root   *durable.Dir // nil once closed
	dirs   handles[*durable.Dir]
	reads  handles[*durable.File]
	writes handles[*durable.File]

	marks *marks // nil where nothing is staged

	// own says that the files are still ours to open up with chmod, which
	// only somebody who is not root ever needs.
	own atomic.Bool
}

func (f *files) init(t *tree.Tree, root *durable.Dir, disk durable.Disk) {
	f.tree, f.root, f.disk = t, root, disk
	f.dirs.bound, f.reads.bound, f.writes.bound = maxOpenDirs, maxOpenFiles, maxOpenFiles
}

// readAt fills p from the stream.
func (f *files) readAt(p []byte, off int64) (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if err := f.usable(off); err != nil {
		return 0, err
	}
	n := 0
	for x := range f.tree.Extents(off, int64(len(p))) {
		part := p[n : n+int(x.Length)]
		if x.File == tree.None {
			clear(part)
		} else if err := f.readFile(x, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *files) readFile(x tree.Extent, p []byte) error {
	return f.use(x.File, &f.reads, os.O_RDONLY, func(file *durable.File) error {
		f.marks.reading(x.File, file)
		n, err := file.ReadAt(p, x.Offset)
		if n == len(p) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: %w: it ends at %d, before byte %d", file.Name(), ErrShort, x.Offset+int64(n), x.Offset+x.Length)
		}
		return err
	})
}

// writeAt stores p at off of the stream; what falls on padding is dropped.
func (f *files) writeAt(p []byte, off int64) (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if err := f.usable(off); err != nil {
		return 0, err
	}
	n := 0
	for x := range f.tree.Extents(off, int64(len(p))) {
		if x.File != tree.None {
			if err := f.writeFile(x, p[n:n+int(x.Length)]); err != nil {
				return n, err
			}
		}
		n += int(x.Length)
	}
	if n < len(p) {
		return n, fmt.Errorf("write at %d: %w: the stream ends at %d", off, fs.ErrInvalid, f.tree.Total())
	}
	return n, nil
}

func (f *files) writeFile(x tree.Extent, p []byte) error {
	return f.use(x.File, &f.writes, os.O_WRONLY|os.O_CREATE, func(file *durable.File) error {
		e := f.tree.Entry(x.File)
		return f.marks.writing(x.File, file, func() error { return writeAround(file, p, x.Offset, e) })
	})
}

// writeAround writes p at off of file but leaves the recorded holes holes, as
// far as p is zeros there.
func writeAround(file *durable.File, p []byte, off int64, e tree.Entry) error {
	end := off + int64(len(p))
	for _, h := range e.Holes {
		from, to := max(h.Offset, off), min(h.Offset+h.Length, end)
		if from >= to {
			continue
		}
		if _, err := file.WriteAt(p[:from-off], off); err != nil {
			return err
		}
		if err := writeHole(file, p[from-off:to-off], from, e.Size); err != nil {
			return err
		}
		p, off = p[to-off:], to
	}
	_, err := file.WriteAt(p, off)
	return err
}

// writeHole makes file read as p at off. Zeros become a hole, also where an
// earlier, unverified write left something else. Extending the file to its
// full size, and never to less, cannot cut off what others write meanwhile.
func writeHole(file *durable.File, p []byte, off, size int64) error {
	if isZero(p) {
		if err := file.Truncate(size); err != nil {
			return err
		}
		if file.PunchHole(off, int64(len(p))) == nil {
			return nil
		} // else a filesystem that cannot: write the zeros
	}
	_, err := file.WriteAt(p, off)
	return err
}

var zeros [32 << 10]byte

func isZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

// use calls do with the file id open, kept open in cache when it is large.
func (f *files) use(id tree.ID, cache *handles[*durable.File], flags int, do func(*durable.File) error) error {
	open := func() (*durable.File, error) { return f.open(id, flags) }
	if _, size := f.tree.Span(id); size >= largeFile {
		x, err := cache.get(id, open)
		if err != nil {
			return err
		}
		defer cache.put(x)
		return do(x.h)
	}
	file, err := open()
	if err != nil {
		return err
	}
	err = do(file)
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	return err
}

func (f *files) open(id tree.ID, flags int) (file *durable.File, err error) {
	err = f.inDir(f.tree.Parent(id), func(d *durable.Dir) error {
		name := f.tree.Name(id)
		file, err = d.Open(name, flags, 0o600)
		if errors.Is(err, fs.ErrPermission) && f.own.Load() {
			// A Finish that did not come to its end has set the final mode.
			if cerr := d.Chmod(name, 0o600); cerr != nil {
				return errors.Join(err, cerr)
			}
			f.marks.adopt(id, d, name)
			file, err = d.Open(name, flags, 0o600)
		}
		return err
	})
	return file, err
}

// inDir calls do with the directory id open.
func (f *files) inDir(id tree.ID, do func(*durable.Dir) error) error {
	x, err := f.dir(id)
	if err != nil {
		return err
	}
	defer f.dirs.put(x)
	return do(x.h)
}

// dir returns the directory id, opened from its parent and so on up to the
// root. The caller puts it back.
func (f *files) dir(id tree.ID) (*handle[*durable.Dir], error) {
	return f.dirs.get(id, func() (*durable.Dir, error) {
		if id == tree.Root {
			return f.root.At(f.root.Path())
		}
		up, err := f.dir(f.tree.Parent(id))
		if err != nil {
			return nil, err
		}
		defer f.dirs.put(up)
		return up.h.Sub(f.tree.Name(id))
	})
}

func (f *files) usable(off int64) error {
	if f.root == nil {
		return fs.ErrClosed
	}
	if off < 0 {
		return fmt.Errorf("offset %d: %w", off, fs.ErrInvalid)
	}
	return nil
}

// move says that the tree stands at path now. The descriptors stay those of
// the same directory, whatever comes to stand at path later.
func (f *files) move(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	root, err := f.root.At(path)
	if err != nil {
		return err
	}
	f.clearAll()
	_ = f.root.Close()
	f.root = root
	return nil
}

func (f *files) clearAll() {
	f.dirs.clear()
	f.reads.clear()
	f.writes.clear()
}

// close gives all descriptors back; calls under way come to their end first.
func (f *files) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.root == nil {
		return nil
	}
	f.clearAll()
	err := f.root.Close()
	f.root = nil
	return err
}

func (f *files) syncFS() error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.root == nil {
		return fs.ErrClosed
	}
	return f.root.SyncFS()
}
