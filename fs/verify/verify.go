// Package verify compares a directory with the release that it should be:
// every entry, all metadata, and the SHA-256 of every file.
//
// It must never change anything, follow a symlink below the directory, or
// take the absence of an answer for agreement: what cannot be read is an error.
package verify

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

// Kind says in what an entry differs.
type Kind string

// The kinds of difference.
const (
	Missing Kind = "missing" // not there; of a directory, with all below it
	Extra   Kind = "extra"   // there but not of the release; of a directory, with all below it
	Type    Kind = "type"    // another kind of entry stands there
	Size    Kind = "size"    // of a file; its content is not read then
	Content Kind = "content" // of a file
	Target  Kind = "target"  // of a symlink
	Links   Kind = "links"   // names that should be one file are several, or the reverse
	Mode    Kind = "mode"
	Owner   Kind = "owner"
	Mtime   Kind = "mtime"
	Xattr   Kind = "xattr"
)

// Difference is one thing in which an entry is not as the release has it.
type Difference struct {
	ID   tree.ID `json:"-"`    // the release's entry; None for an extra one
	Path string  `json:"path"` // from the root of the release, "." for the root; raw bytes
	Kind Kind    `json:"kind"`
	Want string  `json:"want,omitempty"` // readable, such as "0755" or "app:1000"
	Got  string  `json:"got,omitempty"`
}

// String returns the difference as one line, with a quoted path.
func (d Difference) String() string {
	switch {
	case d.Want == "" && d.Got == "":
		return fmt.Sprintf("%s: %q", d.Kind, d.Path)
	case d.Kind == Missing:
		return fmt.Sprintf("%s: %q (%s)", d.Kind, d.Path, d.Want)
	case d.Kind == Extra:
		return fmt.Sprintf("%s: %q (%s)", d.Kind, d.Path, d.Got)
	}
	return fmt.Sprintf("%s: %q: want %s, got %s", d.Kind, d.Path, d.Want, d.Got)
}

// Options say how to compare.
type Options struct {
	// Parallel is how many files are read at once; 0 means GOMAXPROCS.
	Parallel int
	// Unprivileged takes a directory for right that was materialised by
	// somebody who is not root: owners are not compared, setuid and setgid may
	// be missing where the owner is another, and so may attributes that only
	// root can set. Set it when the process itself is not root.
	Unprivileged bool
}

// Unprivileged returns the right Options.Unprivileged for this process.
func Unprivileged() bool { return os.Geteuid() != 0 }

// Compare holds the directory root against t and calls report for every
// difference, one at a time, in an order that depends on the two alone:
// directory by directory in the order of IDs, extra entries of a directory
// first. It returns the first error of reading, of report, or of ctx; a
// difference is no error.
func Compare(ctx context.Context, t *tree.Tree, root string, opt Options, report func(Difference) error) error {
	top, err := durable.Disk{}.OpenDir(root)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer top.Close()
	if opt.Parallel <= 0 {
		opt.Parallel = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &walk{
		t: t, top: top, opt: opt, ctx: ctx, inodes: make(map[inode]tree.ID), firsts: make(map[tree.ID]inode),
		unreachable: make(map[tree.ID]bool),
		todo:        make(chan *job, opt.Parallel),
		inOrder:     make(chan *job, 16*opt.Parallel), // bounds what waits for an earlier large file
	}
	var running sync.WaitGroup
	running.Go(w.run)
	for range opt.Parallel {
		running.Go(w.work)
	}
	err = w.deliver(report)
	cancel()
	w.drain()
	running.Wait()
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return nil
}

// deliver reports the outcomes of the jobs in the order in which they were
// made, until the first error.
func (w *walk) deliver(report func(Difference) error) error {
	for j := range w.inOrder {
		select {
		case <-j.done:
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
		if j.err != nil {
			return j.err
		}
		for _, d := range j.found {
			if err := report(d); err != nil {
				return err
			}
		}
	}
	return w.ctx.Err()
}

// drain lets the walk come to its end after an error.
func (w *walk) drain() {
	for range w.inOrder {
	}
}
