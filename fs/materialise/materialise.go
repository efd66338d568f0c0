// Package materialise turns the payload stream of a release into a directory.
//
// The files are filled in a hidden directory beside the destination,
// PARENT/.BASE.dcfs/, which holds
//
//	tree/   the release: directories 0700, files 0600 until the end
//	have    which pieces are on the disk for certain (SaveHave)
//	lock    one process fills it at a time
//
// and at the end get their metadata and are renamed into place in one step.
//
// It must never show anything under the destination's name before it is whole
// and synced, touch content there that it did not put there, follow a symlink
// below the stage, or report a piece as durable before it is.
package materialise

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

var (
	// ErrBusy says that another process fills the same destination, or that
	// the destination is a mount point: try again later.
	ErrBusy = errors.New("destination is busy")
	// ErrForeign says that content stands at the destination, or in the place
	// of the stage, that this release did not put there.
	ErrForeign = errors.New("destination has other content")
	// ErrShort says that content of a file is missing.
	ErrShort = errors.New("file is not complete")
	// ErrSpace says that the disk is too small. Its errors also wrap ENOSPC.
	ErrSpace = errors.New("not enough disk space")
	// ErrSealed says that the release is being finished, or is finished, and
	// takes no more writes.
	ErrSealed = errors.New("the release takes no more writes")
)

// StageConfig says what to fill and where.
type StageConfig struct {
	Dest     string // the directory to make
	Tree     *tree.Tree
	InfoHash [20]byte     // a stage of another release is discarded
	Resumed  bool         // the stage is of this release, also when it has no record of it yet
	Log      *slog.Logger // nil: no log
	Disk     durable.Disk // for tests; the zero value is right
}

// Stage is the files of a release while they are filled, and after Finish
// while they are served from the destination. It implements io.ReaderAt and
// io.WriterAt on offsets of the payload stream. Methods are safe for
// concurrent use.
type Stage struct {
	files
	cfg    StageConfig
	dest   string
	parent *durable.Dir
	dir    *durable.Dir // PARENT/.BASE.dcfs
	lock   *durable.Lock

	writers sync.RWMutex // held for reading by every write
	sealed  bool         // guarded by writers

	steps   sync.Mutex // held by Finish, Discard, Close, SaveHave
	have    []byte     // what was saved last; nil for nothing
	renamed bool
	gone    bool // the stage directory is removed
	losses  Losses
	shared  map[uint64]bool // inodes of older releases in the stage; nil: it was not marked
}

// OpenStage creates the stage of cfg.Dest, or opens again what an earlier run
// of the same release left; a missing parent of the destination is created.
//
// Errors wrap ErrBusy while another process has the stage, and ErrForeign when
// the destination is there and is not an empty directory; ask Complete first
// whether it is this very release.
//
//	mkdir PARENT; fsync(PARENT of it)     when missing
//	mkdir STAGE
//	open, flock STAGE/lock; ftruncate, pwrite (process id)
//	read STAGE/have; remove all else of another release
//	mkdir STAGE/tree and each directory of the release
//
// None of that is synced: what a crash takes of it is made again.
func OpenStage(cfg StageConfig) (*Stage, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	dest, err := cfg.Disk.Resolve(cfg.Dest)
	if err != nil {
		return nil, fmt.Errorf("destination %s: %w", cfg.Dest, err)
	}
	if err := cfg.Disk.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return nil, fmt.Errorf("destination %s: its parent: %w", dest, err)
	}
	s := &Stage{cfg: cfg, dest: dest}
	if err := s.openAll(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stage) openAll() (err error) {
	if s.parent, err = s.cfg.Disk.OpenDir(filepath.Dir(s.dest)); err != nil {
		return fmt.Errorf("destination %s: %w", s.dest, err)
	}
	if err := checkDest(s.parent, filepath.Base(s.dest)); err != nil {
		return err
	}
	if s.dir, s.lock, err = takeStage(s.parent, stageName(s.dest)); err != nil {
		return fmt.Errorf("destination %s: %w", s.dest, err)
	}
	if err := s.dropOther(); err != nil {
		return fmt.Errorf("destination %s: an old stage: %w", s.dest, err)
	}
	if err := ensureDir(s.dir, "tree"); err != nil {
		return err
	}
	root, err := s.dir.Sub("tree")
	if err != nil {
		return err
	}
	s.files.init(s.cfg.Tree, root, s.cfg.Disk)
	s.marks = newMarks(s.tree.Len())
	s.own.Store(true)
	if err := s.makeDirs(); err != nil {
		return err
	}
	return s.dropShared()
}

func stageName(dest string) string { return "." + filepath.Base(dest) + ".dcfs" }

// checkDest finds out early what rename would refuse at the end.
func checkDest(parent *durable.Dir, base string) error {
	st, err := parent.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	path := filepath.Join(parent.Path(), base)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%w: %s is not a directory; move it away or choose another destination", ErrForeign, path)
	}
	d, err := parent.Sub(base)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Names()
	if err == nil && len(names) > 0 {
		return fmt.Errorf("%w: %s holds %q and is not this release; move it away or choose another destination", ErrForeign, path, names[0])
	}
	return err
}

// takeStage opens the stage directory name, created if need be, and takes its
// lock. An earlier holder may remove the directory between the two: then from
// the start.
func takeStage(parent *durable.Dir, name string) (dir *durable.Dir, lock *durable.Lock, err error) {
	for range 10 {
		if err := parent.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, nil, err
		}
		if dir, err = parent.Sub(name); err == nil {
			if lock, err = lockStage(dir); err == nil {
				return dir, lock, nil
			}
			dir.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("%w: %s/%s is in the way; remove it", ErrForeign, parent.Path(), name)
	}
	return nil, nil, err
}

// lockStage refuses a directory that somebody else could have prepared: in a
// parent that all may write to, its content would be theirs.
func lockStage(dir *durable.Dir) (*durable.Lock, error) {
	st, err := dir.Stat()
	if err != nil {
		return nil, err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("%w: %s belongs to somebody else (uid %d, mode %o); remove it", ErrForeign, dir.Path(), st.Uid, st.Mode&0o7777)
	}
	lock, err := dir.Lock("lock")
	if errors.Is(err, durable.ErrHeld) {
		return nil, fmt.Errorf("%w: %w; wait for it to end, or choose another destination", ErrBusy, err)
	}
	return lock, err
}

// dropOther empties a stage that is not of this release, or of none for sure.
func (s *Stage) dropOther() error {
	have, err := readHave(s.dir, s.cfg.InfoHash)
	if s.have = have; have != nil || err != nil || s.cfg.Resumed {
		return err
	}
	names, err := s.dir.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == "lock" {
			continue
		}
		s.cfg.Log.Info("discarding what an earlier run staged", "path", s.dir.Path()+"/"+name, "same_release", false)
		if err := s.dir.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

// makeDirs creates all directories of the release, level by level and those of
// one level in parallel: whoever mounts thousands of directories waits for it.
func (s *Stage) makeDirs() error {
	for level := []tree.ID{tree.Root}; len(level) > 0; {
		var group errgroup.Group
		group.SetLimit(runtime.GOMAXPROCS(0))
		var next []tree.ID
		for _, dir := range level {
			subs := s.subdirs(dir)
			if len(subs) == 0 {
				continue
			}
			next = append(next, subs...)
			group.Go(func() error { return s.makeIn(dir, subs) })
		}
		if err := group.Wait(); err != nil {
			return fmt.Errorf("staging %s: %w", s.dest, err)
		}
		level = next
	}
	return nil
}

func (s *Stage) makeIn(dir tree.ID, subs []tree.ID) error {
	return s.inDir(dir, func(d *durable.Dir) error {
		for _, id := range subs {
			if err := ensureDir(d, s.tree.Name(id)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Stage) subdirs(dir tree.ID) (out []tree.ID) {
	first, count := s.tree.Children(dir)
	for id := first; id < first+tree.ID(count); id++ {
		if s.tree.Kind(id) == tree.Dir {
			out = append(out, id)
		}
	}
	return out
}

// ensureDir makes name a directory that we can work in. A Finish that did not
// come to its end may have left it with its final mode.
func ensureDir(d *durable.Dir, name string) error {
	err := d.Mkdir(name, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := d.Lstat(name)
	switch {
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%w: %s/%s is in the place of a directory; remove it", ErrForeign, d.Path(), name)
	case st.Mode&0o7777 != 0o700:
		return d.Chmod(name, 0o700)
	}
	return nil
}

// ReadAt fills p from offset off of the payload stream; padding is zeros. It
// is short only at the end of the stream, with io.EOF. Content of a file that
// was never written, or only in part, is an error (fs.ErrNotExist, ErrShort),
// but a gap that later writes enclose reads as zeros, so check hashes. After
// Finish it reads the same files at the destination.
func (s *Stage) ReadAt(p []byte, off int64) (int, error) { return s.readAt(p, off) }

// WriteAt stores p at offset off of the payload stream. Files are created at
// their first write; padding is dropped; zeros in a recorded hole stay a hole.
// A full disk is ENOSPC in the error. Once Finish has begun it returns
// ErrSealed.
//
//	open(FILE, O_CREAT); pwrite(FILE), around holes
//	ftruncate(FILE), fallocate(FILE, PUNCH_HOLE)   for zeros in a hole
func (s *Stage) WriteAt(p []byte, off int64) (int, error) {
	s.writers.RLock()
	defer s.writers.RUnlock()
	if s.sealed {
		return 0, fmt.Errorf("write to %s: %w", s.dest, ErrSealed)
	}
	return s.writeAt(p, off)
}

// Sync writes all that WriteAt took to the disk and reports what could not be
// written since the stage was opened, with one syncfs.
func (s *Stage) Sync() error { return s.syncFS() }

// Dest returns the destination as an absolute path with the symlinks in its
// parent resolved.
func (s *Stage) Dest() string { return s.dest }

// Path returns the directory in which the release's files are now: in the
// stage, or after Finish the destination.
func (s *Stage) Path() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.root == nil {
		return s.dest
	}
	return s.root.Path()
}

// Close gives all descriptors and the lock back. An unfinished stage stays on
// the disk for the next OpenStage. Calls under way end first.
func (s *Stage) Close() error {
	s.steps.Lock()
	defer s.steps.Unlock()
	err := s.files.close()
	for _, d := range []*durable.Dir{s.dir, s.parent} {
		if d != nil {
			err = errors.Join(err, d.Close())
		}
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Release())
	}
	return err
}
