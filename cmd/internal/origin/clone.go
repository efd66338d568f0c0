package origin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"dcfs/fs/materialise"
	"dcfs/fs/snapshot"
	"dcfs/fs/tree"
)

// fill brings the content into the stage and hashes it there. Where the
// filesystem can, every file is cloned first and its clone is hashed: nobody
// else can write to that, so what was hashed is what is kept. Elsewhere the
// bytes that are hashed are the bytes that are copied.
func (p *publisher) fill(ctx context.Context, stage *materialise.Stage) error {
	cloned, err := p.clone(ctx, stage)
	if err != nil {
		return err
	}
	if !cloned {
		return p.hash(ctx, stage)
	}
	root, err := os.OpenRoot(stage.Path())
	if err != nil {
		return err
	}
	defer root.Close()
	return p.hashOf(ctx, snapshot.Config{Root: root, Tree: p.tree, Progress: p.cfg.Progress,
		Check: func(string, fs.FileInfo) error { return nil }}) // clone has asked the real files
}

// clone makes the stage's files of the blocks of the scanned ones. It returns
// false, maybe after some of them, when the filesystem cannot.
func (p *publisher) clone(ctx context.Context, stage *materialise.Stage) (bool, error) {
	for id := range tree.ID(p.tree.Len()) {
		if p.tree.Kind(id) != tree.File || p.tree.Inode(id) != id {
			continue
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		err := p.cloneFile(stage, id)
		if errors.Is(err, materialise.ErrNoClone) {
			p.cfg.Log.Debug("the content is copied", "cause", err)
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	p.cfg.Log.Info("the content was cloned, not copied", "version", p.cfg.Version)
	return true, nil
}

// cloneFile clones one file and then makes sure that it is what was scanned: a
// clone is of one instant, so nothing needs to be asked before.
func (p *publisher) cloneFile(stage *materialise.Stage, id tree.ID) error {
	path := p.tree.Path(id)
	f, err := p.root.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) {
		return fmt.Errorf("%q %w: %w: run again when nothing writes to the directory", path, tree.ErrChanged, err)
	}
	if err != nil {
		return fmt.Errorf("reading %q: %w", path, err)
	}
	defer f.Close()
	err = stage.Clone(id, f)
	if errors.Is(err, materialise.ErrNoClone) {
		return err
	}
	info, statErr := f.Stat()
	if statErr == nil {
		statErr = p.scan.Check(path, info)
	}
	if statErr != nil {
		return statErr
	}
	return err
}
