package verify

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

// walk goes through the directories in the order of IDs and makes a job of
// every entry: metadata is compared at once, content by the workers.
type walk struct {
	t   *tree.Tree
	top *durable.Dir
	opt Options
	ctx context.Context

	inodes      map[inode]tree.ID // files on disk with several names: whose are they?
	firsts      map[tree.ID]inode // hardlinked files of the release: where is the first name?
	unreachable map[tree.ID]bool  // directories that are missing or something else

	todo    chan *job // content to read
	inOrder chan *job // all, as they are to be reported
}

type inode struct{ dev, ino uint64 }

// job is one entry. What it found belongs to its maker until it is sent, to a
// worker until done is closed, and then to deliver.
type job struct {
	e     tree.Entry
	dir   *openDir
	found []Difference
	err   error
	done  chan struct{}
}

// openDir is a directory that closes when its last job is done.
type openDir struct {
	*durable.Dir
	path string // from the root of the release, "" for the root itself
	refs atomic.Int32
}

func (d *openDir) put() {
	if d.refs.Add(-1) == 0 {
		d.Close()
	}
}

func (d *openDir) join(name string) string {
	if d.path == "" {
		return name
	}
	return d.path + "/" + name
}

// run makes the jobs. It ends when the tree does, or ctx.
func (w *walk) run() {
	defer close(w.inOrder)
	defer close(w.todo)
	for id := tree.Root; w.t.Has(id) && w.ctx.Err() == nil; id++ {
		if w.t.Kind(id) != tree.Dir {
			continue
		}
		if id != tree.Root && w.unreachable[w.t.Parent(id)] {
			w.unreachable[id] = true
		}
		if w.unreachable[id] {
			continue
		}
		if err := w.directory(id); err != nil {
			w.send(&job{err: err, done: make(chan struct{})}, false)
			return
		}
	}
}

// send hands a finished job, or one whose content is still to be read, on.
func (w *walk) send(j *job, read bool) {
	if !read {
		close(j.done)
	}
	select {
	case w.inOrder <- j:
	case <-w.ctx.Done():
		if read {
			j.dir.put()
		}
		return
	}
	if !read {
		return
	}
	select {
	case w.todo <- j:
	case <-w.ctx.Done():
		j.dir.put()
	}
}

// directory compares id itself when it is the root, and its entries.
func (w *walk) directory(id tree.ID) error {
	d, err := w.open(id)
	if err != nil {
		return err
	}
	dir := &openDir{Dir: d}
	if id != tree.Root {
		dir.path = w.t.Path(id)
	}
	dir.refs.Store(1)
	defer dir.put()
	if id == tree.Root {
		if err := w.root(dir); err != nil {
			return err
		}
	}
	if err := w.extras(dir, id); err != nil {
		return err
	}
	first, count := w.t.Children(id)
	for child := first; child < first+tree.ID(count) && w.ctx.Err() == nil; child++ {
		if err := w.entry(dir, child); err != nil {
			return err
		}
	}
	return nil
}

// open opens the directory id, one element after the other from the top.
func (w *walk) open(id tree.ID) (*durable.Dir, error) {
	var names []string
	for ; id != tree.Root; id = w.t.Parent(id) {
		names = append(names, w.t.Name(id))
	}
	d, err := w.top.At(w.top.Path())
	for _, name := range slices.Backward(names) {
		if err != nil {
			return nil, err
		}
		up := d
		d, err = up.Sub(name)
		up.Close()
	}
	return d, err
}

func (w *walk) root(dir *openDir) error {
	st, err := dir.Stat()
	if err != nil {
		return err
	}
	j := &job{e: w.t.Entry(tree.Root), done: make(chan struct{})}
	w.metadata(j, ".", &st)
	attrs, err := dir.OwnXattrs()
	if err != nil {
		return err
	}
	w.xattrs(j, ".", attrs)
	w.send(j, false)
	return nil
}

// extras reports what is in the directory but not in the release, by name.
func (w *walk) extras(dir *openDir, id tree.ID) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	j := &job{done: make(chan struct{})}
	for _, name := range names {
		if _, ok := w.t.Lookup(id, name); ok {
			continue
		}
		st, err := dir.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		j.found = append(j.found, Difference{ID: tree.None, Path: dir.join(name), Kind: Extra, Got: typeName(st.Mode)})
	}
	if len(j.found) > 0 {
		w.send(j, false)
	}
	return nil
}

// entry compares what can be compared without reading content.
func (w *walk) entry(dir *openDir, id tree.ID) error {
	j := &job{e: w.t.Entry(id), dir: dir, done: make(chan struct{})}
	path := dir.join(j.e.Name)
	st, err := dir.Lstat(j.e.Name)
	if errors.Is(err, fs.ErrNotExist) {
		w.unreachable[id] = true
		j.add(path, Missing, kindName(j.e.Kind), "")
		w.send(j, false)
		return nil
	}
	if err != nil {
		return err
	}
	if want := formats[j.e.Kind]; st.Mode&unix.S_IFMT != want {
		w.unreachable[id] = true
		j.add(path, Type, typeName(want), typeName(st.Mode))
		w.send(j, false)
		return nil
	}
	if j.e.Kind == tree.File && w.links(j, path, &st) {
		w.send(j, false) // all else was compared under its first name
		return nil
	}
	if err := w.inside(j, path, &st); err != nil {
		return err
	}
	read := j.e.Kind == tree.File && st.Size == j.e.Size
	if read {
		dir.refs.Add(1)
	}
	w.send(j, read)
	return nil
}

// inside compares what belongs to the inode.
func (w *walk) inside(j *job, path string, st *unix.Stat_t) error {
	w.metadata(j, path, st)
	if j.e.Kind == tree.Symlink {
		if err := target(j, path, j.dir); err != nil {
			return err
		}
	}
	attrs, err := j.dir.Xattrs(j.e.Name)
	if err != nil {
		return err
	}
	w.xattrs(j, path, attrs)
	return nil
}

func target(j *job, path string, dir *openDir) error {
	got, err := dir.Readlink(j.e.Name)
	if err != nil {
		return err
	}
	if got != j.e.Target {
		j.add(path, Target, quote(j.e.Target), quote(got))
	}
	return nil
}

func (j *job) add(path string, kind Kind, want, got string) {
	j.found = append(j.found, Difference{ID: j.e.ID, Path: path, Kind: kind, Want: want, Got: got})
}
