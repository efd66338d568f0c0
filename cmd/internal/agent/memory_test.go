package agent

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDefaultCache: the tightest limit around the process decides, whichever
// kind of cgroup has it and wherever that is mounted.
func TestDefaultCache(t *testing.T) {
	const (
		v2 = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
		v1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
			"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
			"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		docker = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro master:1 - cgroup cgroup rw,hugetlb,memory\n"
		memory = "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n"
	)
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing is known": {nil, unknownCache},
		"no limit":         {map[string]string{"proc/meminfo": memory}, 1 << 30},
		"much memory":      {map[string]string{"proc/meminfo": "MemAvailable: 99999999 kB\n"}, maxCache},
		"little memory":    {map[string]string{"proc/meminfo": "MemAvailable: 10000 kB\n"}, minCache},
		"v2": {map[string]string{
			"proc/meminfo": memory, "proc/self/mountinfo": v2, "proc/self/cgroup": "0::/system.slice/dcfs.service\n",
			"sys/fs/cgroup/system.slice/dcfs.service/memory.max":     "1073741824\n",
			"sys/fs/cgroup/system.slice/dcfs.service/memory.high":    "max\n",
			"sys/fs/cgroup/system.slice/dcfs.service/memory.current": "268435456\n",
			"sys/fs/cgroup/system.slice/dcfs.service/memory.stat":    "anon 1\ninactive_file 134217728\n",
		}, (1<<30 - 128<<20) / 4},
		"v2, the slice above": {map[string]string{
			"proc/meminfo": memory, "proc/self/mountinfo": v2, "proc/self/cgroup": "0::/a.slice/b/c\n",
			"sys/fs/cgroup/a.slice/b/c/memory.max": "max\n", "sys/fs/cgroup/a.slice/b/memory.max": "2147483648\n",
			"sys/fs/cgroup/a.slice/memory.high": "536870912\n",
		}, 128 << 20},
		"v2, nothing is left": {map[string]string{
			"proc/meminfo": memory, "proc/self/mountinfo": v2, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "100000\n", "sys/fs/cgroup/memory.current": "200000\n",
		}, minCache},
		"v1": {map[string]string{
			"proc/meminfo": memory, "proc/self/mountinfo": v1, "proc/self/cgroup": "5:cpu:/x\n4:memory:/jobs/7\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":        "9223372036854771712\n",
			"sys/fs/cgroup/memory/jobs/memory.limit_in_bytes":   "1073741824\n",
			"sys/fs/cgroup/memory/jobs/memory.usage_in_bytes":   "209715200\n",
			"sys/fs/cgroup/memory/jobs/memory.stat":             "total_inactive_file 104857600\n",
			"sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes": "9223372036854771712\n",
		}, (1<<30 - 100<<20) / 4},
		"v1 in a container": {map[string]string{
			"proc/meminfo": memory, "proc/self/mountinfo": docker, "proc/self/cgroup": "4:hugetlb,memory:/docker/abc\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n",
		}, 64 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for path, text := range c.files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := defaultCache(root); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}
