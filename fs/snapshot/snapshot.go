// Package snapshot reads a scanned directory once and yields what publish has
// to know of its content: the SHA-1 of every piece and the SHA-256 of every
// file. The same pass can copy the payload into a store.
//
// It must never follow a symlink, never leave the directory it is given, never
// write to it, and never yield the hashes of something else than was scanned:
// a file that changed meanwhile fails the whole run.
package snapshot

import (
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"dcfs/cache/piece"
	"dcfs/fs/tree"
)

// Config says what to read and where the bytes go.
type Config struct {
	Root *os.Root   // the scanned directory
	Tree *tree.Tree // its tree, laid out; sums in it are not looked at

	// Check tells whether a file is still what was scanned, as
	// tree.ScanResult.Check does; it is asked before the first byte of a file
	// and after the last. Nil: kind, size and mtime must be those of the tree.
	Check func(path string, info fs.FileInfo) error

	// Sink, if not nil, gets every byte of the payload stream once, padding
	// included, up to 256 KiB at a time and from several goroutines at once.
	Sink io.WriterAt

	// Progress, if not nil, is told how many bytes of the stream have been
	// read. Calls come one at a time, with rising numbers, total at last.
	Progress func(done, total int64)

	// Workers is how many goroutines hash; 0 is one per processor.
	Workers int
}

// Result is what a run of Hash found.
type Result struct {
	// Pieces is the SHA-1 of every piece, one behind the other (BEP 3).
	Pieces []byte

	tree *tree.Tree
	sums [][sha256.Size]byte
	weak []uint32
}

// Weak returns the weak sum (tree.WeakOf) of the start of piece i.
func (r Result) Weak(i int) uint32 { return r.weak[i] }

// Sum returns the SHA-256 of a file's content; for a further name of a
// hardlinked file that of the inode, and zeros for what is no file.
func (r Result) Sum(id tree.ID) [sha256.Size]byte { return r.sums[r.tree.Inode(id)] }

const (
	// slabSize is how much is read at once: what stays in a processor's
	// second-level cache until it is hashed.
	slabSize = 256 << 10

	// maxFlight bounds the slabs in flight, and with them the memory, to
	// 64 MiB.
	maxFlight = 256
)

// Hash reads the payload stream in its order, each byte once, and hashes it on
// all workers; one huge file keeps two of them busy. A file that is not what
// was scanned any more fails the run with an error that names it and wraps
// tree.ErrChanged.
func Hash(ctx context.Context, cfg Config) (Result, error) {
	workers := cfg.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	length := cfg.Tree.PieceLength()
	size := min(length, slabSize)
	// Each worker can be in a piece of its own, and one more is being read.
	flight := min(maxFlight, (workers+1)*int(length/size)+2)
	h := &hasher{
		cfg:    cfg,
		slabs:  piece.Layout{Total: cfg.Tree.Total(), Length: size},
		free:   make(chan *slab, flight),
		ready:  make(chan *chain, partsPerSlab*flight),
		pieces: make([]byte, piece.Layout{Total: cfg.Tree.Total(), Length: length}.Count()*hashSize),
		sums:   make([][sha256.Size]byte, cfg.Tree.Len()),
	}
	h.weak = make([]uint32, len(h.pieces)/hashSize)
	h.turned = sync.NewCond(&h.mu)
	for range flight {
		h.free <- &slab{} // its memory comes with its first use
	}
	if err := h.run(ctx, workers); err != nil {
		return Result{}, err
	}
	return Result{Pieces: h.pieces, tree: cfg.Tree, sums: h.sums, weak: h.weak}, nil
}

func (h *hasher) run(ctx context.Context, workers int) error {
	group, ctx := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error { return h.work(ctx) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	none := sha256.Sum256(nil)
	return newSource(h.cfg).checkEmpties(func(id tree.ID) { h.sums[id] = none })
}
