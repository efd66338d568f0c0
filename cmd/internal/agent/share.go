package agent

import (
	"context"
	"os"

	"dcfs/fs/materialise"
	"dcfs/fs/reuse"
	"dcfs/fs/tree"
)

// shareWith returns what makes files of the stage hardlinks of those of older
// releases, when that was asked for; else nil.
func (l *life) shareWith(stage *materialise.Stage) func(context.Context) {
	if !l.cfg.ReuseLinks {
		return nil
	}
	return func(ctx context.Context) {
		files, bytes := 0, int64(0)
		reuse.Same(ctx, l.rel.Tree, l.reuseSources(), func(id tree.ID, old *os.File) {
			if err := stage.Share(id, old); err != nil {
				l.log.Debug("a file is not shared with an older release", "file", l.rel.Tree.Path(id), "cause", err)
				return
			}
			_, size := l.rel.Tree.Span(id)
			files, bytes = files+1, bytes+size
		})
		l.log.Info("shared with older releases by hardlinks", "files", files, "bytes", bytes)
	}
}
