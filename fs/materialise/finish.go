package materialise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

// Completion is what Finish records with the release.
type Completion struct {
	State   string // the state directory, for the receipt
	Version string // the name under which the release was asked for
	// Share, if set, may call Stage.Share for files of the release. It is
	// called once all are there and before any gets its metadata.
	Share func(context.Context)
	// InPlace, if set, says that the destination is the mountpoint on which the
	// release is served meanwhile. It calls exchange where the mount is not
	// seen; see Stage.exchange.
	InPlace func(exchange func() error) error
}

// Finish makes the release whole and gives it its name: what has no content
// of its own, then all metadata from the leaves up, then
//
//	syncfs(STAGE)
//	write STATE/receipts/….json     names the directory by its inode
//	renameat(STAGE/tree, DEST)
//	fsync(PARENT)
//	remove STAGE
//
// In place (Completion.InPlace) the rename is an exchange, and STAGE stays, with
// the former mountpoint in it, until Clear.
//
// A crash before the rename leaves the stage, and OpenStage and Finish go on;
// a crash after it leaves a directory that Complete knows, and at most a stage
// for RemoveStage. Calling it again after an error goes on where it failed;
// after success it does nothing. All content has to be there and verified: a
// file that is missing or short is an error (ErrShort). Files that somebody
// else changed since they were written or first read are a ChangedError: have
// them hashed again, and then call Finish again.
//
// A process that is not root cannot give files away. It keeps everything in
// its own name, leaves setuid and setgid off where the owner is not the
// release's (they would grant its own rights in place of the owner's), and
// leaves out extended attributes that only root may set; see Losses.
//
// Reads go on meanwhile and afterwards; writes get ErrSealed, unless Finish
// fails before the rename and nothing in the stage is shared any more.
// testdata/materialise.golden has every call, from OpenStage on.
func (s *Stage) Finish(ctx context.Context, c Completion) error {
	s.steps.Lock()
	defer s.steps.Unlock()
	if s.gone && s.renamed {
		return nil
	}
	if err := s.finish(ctx, c); err != nil {
		if !s.renamed {
			err = s.reopen(err)
		}
		return fmt.Errorf("finishing %s: %w", s.dest, spaceError(err))
	}
	return nil
}

// reopen lets writes in again after a Finish that failed. They stay out while a
// file of an older release may still be in the stage.
func (s *Stage) reopen(cause error) error {
	if s.root != nil {
		s.remark(cause)
		if err := s.dropShared(); err != nil {
			return errors.Join(cause, err)
		}
	}
	s.seal(false)
	return cause
}

func (s *Stage) finish(ctx context.Context, c Completion) error {
	if !s.renamed {
		s.seal(true)
		if err := s.prepare(ctx, c); err != nil {
			return err
		}
		if err := s.rename(c); err != nil {
			return err
		}
	}
	if err := s.parent.Sync(); err != nil {
		return err
	}
	if c.InPlace != nil {
		return s.dir.Sync() // Clear does the rest
	}
	return s.removeStage()
}

// seal stops writes and waits for those under way. Their descriptors go: a
// program cannot be executed while somebody has it open for writing.
func (s *Stage) seal(on bool) {
	s.writers.Lock()
	defer s.writers.Unlock()
	s.sealed = on
	s.writes.clear()
}

func (s *Stage) prepare(ctx context.Context, c Completion) error {
	if s.root == nil {
		return fs.ErrClosed
	}
	// From here on every directory is found by its name again, as readers of
	// the release will find it.
	s.dirs.clear()
	s.losses = Losses{}
	if err := s.unchanged(ctx); err != nil {
		return err
	}
	share := func(ctx context.Context) error {
		if c.Share != nil {
			c.Share(ctx)
		}
		return nil
	}
	for _, step := range []func(context.Context) error{s.addRest, share, s.dress} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := s.syncFS(); err != nil {
		return err
	}
	if s.losses != (Losses{}) {
		s.cfg.Log.Warn("not root: some metadata of the release could not be kept", "dest", s.dest,
			"owners", s.losses.Owners, "setid", s.losses.SetIDs, "xattrs", s.losses.Xattrs)
	}
	who, err := identify(s.cfg.Disk, s.root.Path())
	if err != nil {
		return err
	}
	return writeReceipt(s.cfg.Disk, c.State, newReceipt(s.dest, c.Version, s.cfg.InfoHash, who))
}

func (s *Stage) rename(c Completion) (err error) {
	if c.InPlace != nil {
		err = c.InPlace(s.exchange)
	} else {
		err = s.dir.Rename("tree", s.parent, filepath.Base(s.dest))
	}
	switch {
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w: something came to stand at %s meanwhile (%w); move it away and try again", ErrForeign, s.dest, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %s is a mount point (%w); unmount it and try again", ErrBusy, s.dest, err)
	case err != nil:
		return err
	}
	s.renamed = true
	s.own.Store(false)
	return s.files.move(s.dest)
}

// exchange makes the tree and the empty directory at the destination change
// places: a mount that is on that directory goes with it, to Aside. Who calls
// it must see the directory itself, or it would be the mount's entries that are
// counted.
//
//	open(DEST); getdents
//	renameat2(STAGE/tree, DEST, RENAME_EXCHANGE)
func (s *Stage) exchange() error {
	names, err := os.ReadDir(s.dest)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: %q came to stand in %s meanwhile; move it away and try again", ErrForeign, names[0].Name(), s.dest)
	}
	err = s.dir.Exchange("tree", s.parent, filepath.Base(s.dest))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w: the filesystem of %s cannot exchange two directories; choose a destination other than the mountpoint", err, s.dest)
	}
	return err
}

// Aside is where the directory that stood at dest, with what is mounted on it,
// is after a Finish in place and until Clear.
func Aside(dest string) string {
	return filepath.Join(filepath.Dir(dest), stageName(dest), "tree")
}

// addRest creates what WriteAt does not: empty files, further names of files,
// symlinks. It also removes what is not of the release, so that the tree is
// exactly the release.
func (s *Stage) addRest(ctx context.Context) error {
	for id := tree.Root; s.tree.Has(id); id++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.tree.Kind(id) == tree.Dir {
			if err := s.inDir(id, func(d *durable.Dir) error { return s.removeStrangers(d, id) }); err != nil {
				return err
			}
		}
		if id == tree.Root {
			continue
		}
		err := s.inDir(s.tree.Parent(id), func(d *durable.Dir) error { return s.addEntry(d, id) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Stage) removeStrangers(d *durable.Dir, id tree.ID) error {
	names, err := d.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := s.tree.Lookup(id, name); ok {
			continue
		}
		s.cfg.Log.Warn("removing an entry from the stage that is not of the release", "path", d.Path()+"/"+name)
		if err := d.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stage) addEntry(d *durable.Dir, id tree.ID) error {
	switch {
	case s.tree.Kind(id) == tree.Symlink:
		return addSymlink(d, s.tree.Name(id), s.tree.Entry(id).Target)
	case s.tree.Kind(id) != tree.File:
		return nil
	case s.tree.Inode(id) != id:
		inode := s.tree.Inode(id)
		return s.inDir(s.tree.Parent(inode), func(from *durable.Dir) error {
			return addLink(from, s.tree.Name(inode), d, s.tree.Name(id))
		})
	}
	if _, size := s.tree.Span(id); size > 0 {
		return nil
	}
	return s.use(id, &s.writes, unix.O_WRONLY|unix.O_CREAT, func(*durable.File) error { return nil })
}

func addSymlink(d *durable.Dir, name, target string) error {
	err := d.Symlink(target, name)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if got, err := d.Readlink(name); err == nil && got == target {
		return nil
	}
	if err := d.RemoveAll(name); err != nil {
		return err
	}
	return d.Symlink(target, name)
}

func addLink(from *durable.Dir, oldname string, to *durable.Dir, name string) error {
	err := from.Link(oldname, to, name)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	a, err := from.Lstat(oldname)
	if err != nil {
		return err
	}
	if b, err := to.Lstat(name); err == nil && a.Ino == b.Ino && a.Dev == b.Dev {
		return nil
	}
	if err := to.RemoveAll(name); err != nil {
		return err
	}
	return from.Link(oldname, to, name)
}
