package activate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"dcfs/fs/durable"
)

// history is what STATE/links holds of a link. It is written before the link
// moves, so after a crash the link may still lead to Previous: what was before
// that is Older. The link itself says which of the two is the case, and
// nothing has to be written after the swap. It is a durable record, which a full
// disk takes, too.
type history struct {
	Schema   int    `json:"schema"` // 1
	Link     string `json:"link"`
	Current  string `json:"current"`            // where the last swap moved the link
	Previous string `json:"previous,omitempty"` // where it led until then
	Older    string `json:"older,omitempty"`    // what was previous until then
	Epoch    int64  `json:"epoch,omitempty"`    // the newest order known, see fence.go
	Closed   bool   `json:"closed,omitempty"`   // nothing of that order is in force any more
	From     string `json:"from,omitempty"`     // where the link led when that order came
}

// previous returns where the link led before it came to lead where it does.
func (l *pointer) previous() string {
	switch l.now {
	case l.hist.Current:
		return l.hist.Previous
	case l.hist.Previous: // a crash came before the swap
		return l.hist.Older
	default: // moved by hand: back to what was activated last
		return l.hist.Current
	}
}

// remember records what the link is about to be moved to, and by which order.
func (l *pointer) remember(h history) error {
	l.stamp(&h)
	return l.write(h)
}

func (l *pointer) write(h history) error {
	h.Schema, h.Link = 1, l.path
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return err
	}
	if err := l.opt.Disk.WriteRecord(historyPath(l.opt.State, l.path), append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("its history: %w", err)
	}
	l.hist = h
	return nil
}

func historyPath(state, link string) string {
	sum := sha256.Sum256([]byte(link))
	return filepath.Join(state, "links", hex.EncodeToString(sum[:16])+".json")
}

func readHistory(disk durable.Disk, file string) (h history, err error) {
	b, err := disk.ReadRecord(file)
	if errors.Is(err, fs.ErrNotExist) {
		return history{}, nil
	}
	if err != nil {
		return h, fmt.Errorf("its history: %w", err)
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return h, fmt.Errorf("its history %s is damaged, remove it: %w", file, err)
	}
	if h.Schema != 1 {
		return h, fmt.Errorf("its history %s has schema %d, of a newer dcfs: use that", file, h.Schema)
	}
	return h, nil
}
