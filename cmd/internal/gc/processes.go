package gc

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// process is one that has something open.
type process struct {
	pid, comm string
}

func (p process) uses(path string) string {
	return fmt.Sprintf("the process %s (%s) uses %s", p.pid, p.comm, path)
}

type inode struct{ dev, ino uint64 }

// processes is what the processes of this host have open, mapped, run, or as
// their working directory or root: by path as this process sees it, and by
// inode, which holds across mounts and namespaces.
type processes struct {
	paths  map[string]process
	inodes map[inode]process
}

// maxLine bounds a line of /proc/PID/maps: a path has 4,096 bytes at most.
const maxLine = 64 << 10

// readProcesses looks at all processes but this one. What ends meanwhile, and
// what this process may not look at, is left out.
func readProcesses() (*processes, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	p := &processes{paths: map[string]process{}, inodes: map[inode]process{}}
	self := fmt.Sprint(os.Getpid())
	for _, dir := range dirs {
		pid := filepath.Base(dir)
		if pid == self {
			continue
		}
		comm, _ := os.ReadFile(dir + "/comm")
		who := process{pid, strings.TrimSpace(string(comm))}
		names := []string{"cwd", "root", "exe"}
		if fds, err := os.ReadDir(dir + "/fd"); err == nil {
			for _, fd := range fds {
				names = append(names, "fd/"+fd.Name())
			}
		}
		for _, name := range names {
			p.addLink(who, filepath.Join(dir, name))
		}
		p.addMaps(who, dir+"/maps")
	}
	return p, nil
}

// addLink takes one of the kernel's links to an open file. No daemon is asked
// about a file of a FUSE or network filesystem.
func (p *processes) addLink(who process, name string) {
	to, err := os.Readlink(name)
	if err != nil || !strings.HasPrefix(to, "/") {
		return // ended, or no file: a socket, a pipe
	}
	p.paths[to] = who
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, name, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_INO, &st) == nil {
		p.inodes[inode{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}] = who
	}
}

// addMaps takes what a process has mapped:
//
//	address perms offset major:minor inode   path
func (p *processes) addMaps(who process, name string) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || !strings.HasPrefix(fields[5], "/") {
			continue
		}
		_, path, _ := strings.Cut(lines.Text(), " /")
		p.paths["/"+path] = who
		var major, minor uint32
		var ino uint64
		if _, err := fmt.Sscanf(fields[3]+" "+fields[4], "%x:%x %d", &major, &minor, &ino); err == nil {
			p.inodes[inode{unix.Mkdev(major, minor), ino}] = who
		}
	}
}

// at says who uses something at or below path.
func (p *processes) at(path string) (who []string) {
	for used, proc := range p.paths {
		if within(used, path) && !slices.Contains(who, proc.uses(path)) {
			who = append(who, proc.uses(path))
		}
	}
	slices.Sort(who)
	return who
}
