package materialise

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
)

// Discard removes the stage with all that was filled. After Finish, and a
// second time, there is nothing to remove. The Stage is to be closed still.
func (s *Stage) Discard() error {
	s.steps.Lock()
	defer s.steps.Unlock()
	if s.renamed && !s.gone {
		return s.removeStage()
	}
	if s.gone {
		return nil
	}
	s.seal(true)
	if err := s.files.close(); err != nil {
		return err
	}
	return s.removeStage()
}

// Clear removes what is left of the stage after Finish in place, once nothing
// is mounted in it any more. Before Finish, and a second time, it does nothing.
func (s *Stage) Clear() error {
	s.steps.Lock()
	defer s.steps.Unlock()
	if !s.renamed || s.gone {
		return nil
	}
	return s.removeStage()
}

func (s *Stage) removeStage() error {
	if err := removeStage(s.parent, s.dir, stageName(s.dest)); err != nil {
		return fmt.Errorf("removing the stage of %s: %w", s.dest, err)
	}
	s.gone = true
	return nil
}

// removeStage removes a stage directory whose lock the caller holds. The lock
// goes last but one: whoever opens the directory before that finds it held,
// and whoever comes after it has a lock of his own and keeps the directory.
//
//	unlinkat(…) for all in it but lock
//	unlinkat(lock); unlinkat(STAGE, AT_REMOVEDIR)
//	fsync(PARENT)
func removeStage(parent, dir *durable.Dir, name string) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n == "lock" {
			continue
		}
		if err := dir.RemoveAll(n); err != nil {
			return err
		}
	}
	if err := dir.Remove("lock"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := parent.Rmdir(name); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return parent.Sync()
}

// RemoveStage removes the stage beside dest that a crash left there, whatever
// release it is of: after Complete has said that dest is whole, or to give up.
// ErrBusy says that a process still has it; no stage is no error.
//
//	fsync(PARENT)   what is seen at dest may not have been there for good
//	as removeStage
func RemoveStage(dest string) error {
	abs, err := durable.Resolve(dest)
	if err != nil {
		return fmt.Errorf("destination %s: %w", dest, err)
	}
	parent, err := durable.Disk{}.OpenDir(filepath.Dir(abs))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := parent.Sync(); err != nil {
		return err
	}
	dir, err := parent.Sub(stageName(abs))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	lock, err := lockStage(dir)
	if err != nil {
		return err
	}
	defer lock.Release()
	return removeStage(parent, dir, stageName(abs))
}
