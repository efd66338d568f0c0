package activate

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
)

// Link is a symlink that was activated on this host.
type Link struct {
	Path     string
	Now      string   // where it leads, absolute; "" when it is not there
	Pending  []string // where it may lead next: by a swap that runs now, or an order that is taken back
	Previous string   // where Rollback would lead; "" when nowhere
}

// Links lists the symlinks that the state directory remembers, also those that
// are not there any more. A history that cannot be read is an error: what it
// would protect is not known.
func Links(state string) ([]Link, error) {
	files, err := filepath.Glob(filepath.Join(state, "links", "*.json"))
	if err != nil {
		return nil, err
	}
	var out []Link
	for _, file := range files {
		l := &pointer{}
		if l.hist, err = readHistory(durable.Disk{}, file); err != nil {
			return nil, err
		}
		if l.path = l.hist.Link; l.path == "" {
			continue // it was removed meanwhile
		}
		// What stands there now may be no link: then it leads nowhere.
		if l.now, err = readLink(durable.Disk{}, l.path); err != nil && !errors.Is(err, ErrNotLink) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		link := Link{Path: l.path, Now: l.now, Previous: l.previous()}
		if moving(file) {
			link.Pending = append(link.Pending, l.hist.Current)
		}
		if l.hist.From != "" && !l.hist.Closed {
			link.Pending = append(link.Pending, l.hist.From)
		}
		out = append(out, link)
	}
	return out, nil
}

// moving tells whether somebody holds the lock of a link now. It asks the
// kernel's list: to try the lock would be in the way of who wants to move it.
// When in doubt somebody does.
func moving(history string) bool {
	var st unix.Stat_t
	err := unix.Stat(strings.TrimSuffix(history, ".json")+".lock", &st)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	f, oerr := os.Open("/proc/locks")
	if err != nil || oerr != nil {
		return true
	}
	defer f.Close()
	inode := ":" + strconv.FormatUint(st.Ino, 10)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
		if w := strings.Fields(lines.Text()); len(w) > 5 && w[1] == "FLOCK" && strings.HasSuffix(w[5], inode) {
			return true
		}
	}
	return lines.Err() != nil
}
