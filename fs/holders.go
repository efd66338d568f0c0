package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// findHolder names a process that has something of the device open, mapped, or
// as its working directory or root; "" when there is none. It looks at all
// mount namespaces that have a process. Nothing on the device is touched.
func findHolder(major, minor uint32) string {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	mounts := make(map[int]bool) // numbers of the device's mounts, anywhere
	seen := make(map[string]bool)
	for _, p := range procs {
		if ns, err := os.Readlink(p + "/ns/mnt"); err == nil && !seen[ns] {
			seen[ns] = true
			addMounts(mounts, p, fmt.Sprintf("%d:%d", major, minor))
		}
	}
	if len(mounts) == 0 {
		return ""
	}
	dev := fmt.Sprintf(" %02x:%02x ", major, minor)
	for _, p := range procs {
		if what := holding(p, mounts, dev); what != "" {
			comm, _ := os.ReadFile(p + "/comm")
			return fmt.Sprintf("process %s (%s, %s)", filepath.Base(p), strings.TrimSpace(string(comm)), what)
		}
	}
	return ""
}

func addMounts(mounts map[int]bool, proc, dev string) {
	b, _ := os.ReadFile(proc + "/mountinfo")
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 2 && f[2] == dev {
			if id, err := strconv.Atoi(f[0]); err == nil {
				mounts[id] = true
			}
		}
	}
}

// holding says what a process holds on one of the mounts.
func holding(proc string, mounts map[int]bool, dev string) string {
	for _, link := range []string{"cwd", "root", "exe"} {
		fd, err := unix.Open(proc+"/"+link, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		id, err := mountID(fd)
		unix.Close(fd)
		if err == nil && mounts[id] {
			return link
		}
	}
	infos, _ := filepath.Glob(proc + "/fdinfo/*")
	for _, name := range infos {
		b, _ := os.ReadFile(name)
		if id, ok := parseMountID(string(b)); ok && mounts[id] {
			return "open file"
		}
	}
	if b, _ := os.ReadFile(proc + "/maps"); strings.Contains(string(b), dev) {
		return "mapping"
	}
	return ""
}
