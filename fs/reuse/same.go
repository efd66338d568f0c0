package reuse

import (
	"context"
	"os"

	"dcfs/fs/tree"
)

// Same calls do with every file of t that a source is said to have under the
// same SHA-256, open for reading. What is said is a hint: do has to look. It
// returns when all were seen or ctx ends.
func Same(ctx context.Context, t *tree.Tree, sources []Source, do func(tree.ID, *os.File)) {
	r := New(ctx, Config{Tree: t, Sources: sources})
	defer r.Close()
	for id := range t.Stream() {
		if ctx.Err() != nil {
			return
		}
		if w := r.plan.whole[id]; w != 0 {
			if f, _, err := r.sources[w-1].open(r.plan.wholePath(id)); err == nil {
				do(id, f)
			}
		}
	}
}
