package agent

import (
	"bufio"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	minCache = 16 << 20
	maxCache = 2 << 30
	// unknownCache is for a host that does not say what memory it has.
	unknownCache = 256 << 20
	// overhead is what the process may take above its budget and what it needed
	// before the first piece: garbage, stacks, buffers of the network.
	overhead = 48 << 20
)

// defaultCache is a quarter of the memory that is available to this process,
// within bounds. root is where /proc and /sys are; "/" but for tests.
func defaultCache(root string) int64 {
	free := procFigure(filepath.Join(root, "proc/meminfo"), "MemAvailable:") << 10
	if free <= 0 {
		free = 4 * unknownCache
	}
	return min(max(min(free, cgroupFree(root))/4, minCache), maxCache)
}

// procFigure returns the number behind a word in a file of such lines, 0 when
// there is none.
func procFigure(file, word string) int64 {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if fields := strings.Fields(sc.Text()); len(fields) > 1 && fields[0] == word {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			return n
		}
	}
	return 0
}

// cgroup says how one of the two kinds of cgroup names its figures.
type cgroup struct {
	fstype      string // of its mount
	controller  string // in /proc/self/cgroup and the mount's options; "" for v2
	limits      []string
	used, clean string // bytes in use; those of them that the kernel can take back
}

var cgroups = []cgroup{
	{"cgroup2", "", []string{"memory.max", "memory.high"}, "memory.current", "inactive_file"},
	{"cgroup", "memory", []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes", "total_inactive_file"},
}

// cgroupFree returns how many bytes the limits of this process's cgroups, and
// of those that they are in, leave; math.MaxInt64 without a limit.
func cgroupFree(root string) int64 {
	free := int64(math.MaxInt64)
	for _, kind := range cgroups {
		top, at := kind.find(root)
		if top == "" {
			continue
		}
		for dir := at; ; dir = filepath.Dir(dir) {
			free = min(free, kind.free(dir))
			if dir == top || len(dir) <= len(top) {
				break
			}
		}
	}
	return free
}

// find returns where the hierarchy is mounted, and the process's directory
// there. A container may see a part of the hierarchy only: the mount says
// which.
func (c cgroup) find(root string) (top, at string) {
	path, ok := c.path(root)
	if !ok {
		return "", ""
	}
	raw, _ := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	for line := range strings.Lines(string(raw)) {
		before, after, _ := strings.Cut(line, " - ")
		fields, fs := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(fs) < 3 || fs[0] != c.fstype || c.controller != "" && !hasWord(fs[2], c.controller) {
			continue
		}
		top = filepath.Join(root, fields[4])
		if rel, ok := strings.CutPrefix(path, strings.TrimSuffix(fields[3], "/")); ok {
			return top, filepath.Join(top, filepath.Clean("/"+rel))
		}
		return top, top
	}
	return "", ""
}

// path returns the process's place in the hierarchy.
func (c cgroup) path(root string) (string, bool) {
	raw, _ := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	for line := range strings.Lines(string(raw)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && (c.controller == "" && f[0] == "0" && f[1] == "" || c.controller != "" && hasWord(f[1], c.controller)) {
			return f[2], true
		}
	}
	return "", false
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// free returns what the limits of one directory leave.
func (c cgroup) free(dir string) int64 {
	limit := int64(math.MaxInt64)
	for _, name := range c.limits {
		if n, ok := number(filepath.Join(dir, name)); ok {
			limit = min(limit, n)
		}
	}
	if limit == math.MaxInt64 {
		return limit
	}
	used, _ := number(filepath.Join(dir, c.used))
	return max(limit-max(used-procFigure(filepath.Join(dir, "memory.stat"), c.clean), 0), 0)
}

// number reads a file that holds nothing but a number; "max" is none.
func number(file string) (int64, bool) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	return n, err == nil
}

// boundMemory has the garbage collector keep the process close to its budget:
// left alone, it lets as much garbage pile up as there is in use. What was
// needed to read the release comes on top. An operator's GOMEMLIMIT stands.
func boundMemory(budget int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	debug.SetMemoryLimit(budget + int64(now.HeapAlloc) + overhead)
}
