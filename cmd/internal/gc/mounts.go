package gc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mounts is what is mounted, in this namespace and in all others that have a
// process.
type mounts struct {
	own []*mountinfo.Info
	all []*mountinfo.Info
}

func readMounts() (*mounts, error) {
	own, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	m := &mounts{own: own, all: own}
	seen := map[string]bool{}
	if ns, err := os.Readlink("/proc/self/ns/mnt"); err == nil {
		seen[ns] = true
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, p := range procs {
		ns, err := os.Readlink(p + "/ns/mnt")
		if err != nil || seen[ns] {
			continue // it has ended, or is not ours to look at
		}
		f, err := os.Open(p + "/mountinfo")
		if err != nil {
			continue
		}
		more, err := mountinfo.GetMountsFromReader(f, nil)
		f.Close()
		if err == nil {
			seen[ns] = true
			m.all = append(m.all, more...)
		}
	}
	return m, nil
}

// of says what is mounted of the directory path, or in it.
func (m *mounts) of(path string) (who []string) {
	at, err := m.locate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []string{fmt.Sprintf("it cannot be told what is mounted of it (%v)", err)}
	}
	seen := map[string]bool{}
	for _, i := range m.all {
		why := ""
		switch {
		case within(i.Mountpoint, path):
			why = "something is mounted at " + i.Mountpoint
		case i.Major == at.major && i.Minor == at.minor && within(i.Root, at.root):
			why = fmt.Sprintf("it is mounted at %s (umount %s when nobody needs that)", i.Mountpoint, i.Mountpoint)
		}
		if why != "" && !seen[why] {
			seen[why] = true
			who = append(who, why)
		}
	}
	return who
}

// place is a directory as the table of mounts would name it.
type place struct {
	major, minor int
	root         string // path in its filesystem
}

// locate finds the mount that path lies on, by its number: the longest
// mountpoint may be covered by another.
func (m *mounts) locate(path string) (place, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return place{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return place{}, err
	}
	_, rest, _ := strings.Cut(string(info), "mnt_id:")
	line, _, _ := strings.Cut(rest, "\n")
	id, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return place{}, fmt.Errorf("the kernel does not say on which mount %s is", path)
	}
	for _, i := range m.own {
		if i.ID != id {
			continue
		}
		rel, err := filepath.Rel(i.Mountpoint, path)
		if err != nil {
			return place{}, err
		}
		return place{i.Major, i.Minor, filepath.Join(i.Root, rel)}, nil
	}
	return place{}, fmt.Errorf("mount %d of %s is not in the table of mounts", id, path)
}
