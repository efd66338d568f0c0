package materialise

import (
	"fmt"
	"io/fs"

	"dcfs/fs/durable"
	"dcfs/fs/tree"
)

// Dest is a materialised directory, read as the payload stream of its release,
// to seed it again. Its methods are safe for concurrent use.
type Dest struct{ files }

// OpenDest opens the directory dest, which Complete says to be the release t.
// Reads still go to this very directory when another comes to stand at dest.
func OpenDest(dest string, t *tree.Tree) (*Dest, error) {
	root, err := durable.Disk{}.OpenDir(dest)
	if err != nil {
		return nil, fmt.Errorf("destination %s: %w", dest, err)
	}
	d := &Dest{}
	d.files.init(t, root, durable.Disk{})
	return d, nil
}

// ReadAt fills p from offset off of the payload stream; see Stage.ReadAt.
// Errors name the path that is missing, short or unreadable.
func (d *Dest) ReadAt(p []byte, off int64) (int, error) { return d.readAt(p, off) }

// WriteAt always fails (fs.ErrPermission): a finished release never changes.
func (d *Dest) WriteAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("write to a finished release: %w", fs.ErrPermission)
}

// Sync does nothing: there is nothing to write.
func (d *Dest) Sync() error { return nil }

// Close gives all descriptors back; calls under way end first.
func (d *Dest) Close() error { return d.files.close() }
