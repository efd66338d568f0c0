package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"dcfs/fs/release"
	"dcfs/swarm"
)

// minFiles is how many open files a busy process of either kind may need.
const minFiles = 4096

// kernel: mounting needs fsopen and mount_setattr.
func kernel() Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Finding{Kernel, Warn, "its version is not known: " + err.Error(), ""}
	}
	return judgeKernel(unix.ByteSliceToString(u.Release[:]))
}

func judgeKernel(version string) Finding {
	var major, minor int
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n != 2 {
		return Finding{Kernel, Warn, "Linux " + version + ": the version is not understood", "dcfs mount needs 5.12 or newer"}
	}
	if major < 5 || major == 5 && minor < 12 {
		return Finding{Kernel, Fail, "Linux " + version + " is too old to mount", "Linux 5.12 or newer; dcfs fetch works here"}
	}
	return Finding{Kernel, OK, "Linux " + version, ""}
}

func fuse() Finding {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return Finding{FUSE, Fail, "no FUSE: " + err.Error(), "modprobe fuse, as root; in a container, --device /dev/fuse; dcfs fetch needs none"}
	}
	f.Close()
	if !maySys() {
		return Finding{FUSE, Fail, "this user may not mount (CAP_SYS_ADMIN)", "run as root; dcfs fetch works without"}
	}
	// When one request is late, a kernel with a limit aborts the connection.
	if text, err := os.ReadFile("/proc/sys/fs/fuse/default_request_timeout"); err == nil && strings.TrimSpace(string(text)) != "0" {
		return Finding{FUSE, Warn, "the kernel ends a mount when a request takes " + strings.TrimSpace(string(text)) + " s",
			"sysctl fs.fuse.default_request_timeout=0, or a --read-timeout well below it"}
	}
	return Finding{FUSE, OK, "/dev/fuse opens, and this user may mount", ""}
}

// maySys reports whether this process has CAP_SYS_ADMIN.
func maySys() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

func limits() Finding {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return Finding{Limits, Warn, "they are not known: " + err.Error(), ""}
	}
	if l.Max < minFiles {
		return Finding{Limits, Warn, fmt.Sprintf("a process may have %d open files", l.Max), "ulimit -n 65536, or LimitNOFILE=65536 in a unit"}
	}
	return Finding{Limits, OK, fmt.Sprintf("a process may have %d open files", l.Max), ""}
}

// ports tries to listen where a node would.
func ports(listen string) Finding {
	try := func(addr string) error {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			err = l.Close()
		}
		return err
	}
	if listen != "" {
		if err := try(listen); err != nil {
			return Finding{Ports, Fail, err.Error(), "another --peer-listen"}
		}
		return Finding{Ports, OK, listen + " can be listened on", ""}
	}
	free := 0
	first := ""
	for p := swarm.FirstPort; p <= swarm.LastPort; p++ {
		if try(":"+strconv.Itoa(p)) == nil {
			if free++; first == "" {
				first = strconv.Itoa(p)
			}
		}
	}
	if free == 0 {
		return Finding{Ports, Fail, fmt.Sprintf("every port from %d to %d is taken", swarm.FirstPort, swarm.LastPort), "dcfs status, ss -ltnp; --peer-listen names another"}
	}
	return Finding{Ports, OK, fmt.Sprintf("%d of %d ports are free, the first is %s", free, swarm.LastPort-swarm.FirstPort+1, first), ""}
}

// disks looks at the state directory and at where copies go, if that is another.
func disks(c Config) []Finding {
	out := []Finding{disk(c.State)}
	if c.Dest != "" {
		out = append(out, disk(c.Dest))
	}
	return out
}

// disk looks whether a directory can be made and filled.
func disk(dir string) Finding {
	at, err := existing(dir)
	var st unix.Statfs_t
	if err == nil {
		err = unix.Statfs(at, &st)
	}
	if err != nil {
		return Finding{Disk, Fail, dir + ": " + err.Error(), "another --state or --dest"}
	}
	if f := room(dir, &st); f.Level == Fail {
		return f
	}
	if err := writable(at); err != nil {
		return Finding{Disk, Fail, dir + " cannot be written: " + err.Error(), "another --state or --dest, or the rights to write there"}
	}
	return room(dir, &st)
}

// room judges what is free.
func room(dir string, st *unix.Statfs_t) Finding {
	free, size := st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize)
	text := fmt.Sprintf("%s: %s of %s are free", dir, humanize.IBytes(free), humanize.IBytes(size))
	switch {
	case st.Files > 0 && st.Ffree < 1000:
		return Finding{Disk, Fail, fmt.Sprintf("%s; %d files more can be made", text, st.Ffree), "remove old releases: dcfs gc"}
	case free < 64<<20:
		return Finding{Disk, Fail, text, "remove old releases: dcfs gc"}
	case free < 1<<30 || size > 0 && free < size/20:
		return Finding{Disk, Warn, text, "a release needs its size once more while it is made; dcfs gc removes old ones"}
	}
	return Finding{Disk, OK, text, ""}
}

func runDir(dir string) Finding {
	at, err := existing(dir)
	if err == nil {
		err = writable(at)
	}
	if err != nil {
		return Finding{Run, Fail, dir + " cannot be written: " + err.Error(), "another --run, or the rights to write there"}
	}
	return Finding{Run, OK, dir + " can be written", ""}
}

// existing returns the directory, or the closest one above it that is there.
func existing(dir string) (string, error) {
	for {
		st, err := os.Stat(dir)
		switch {
		case err == nil && st.IsDir():
			return dir, nil
		case err == nil:
			return "", fmt.Errorf("%s is no directory", dir)
		case !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir):
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}

// writable makes a file and writes to it; a full disk takes a name but no byte.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".dcfs-doctor-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Close())
}

func keys(dir string) Finding {
	if _, err := release.LoadTrusted(dir); err != nil {
		return Finding{Keys, Fail, err.Error(), "mend or remove that file"}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.pub"))
	if len(files) == 0 {
		return Finding{Keys, Warn, "no key is trusted: every release will be refused", "put the publisher's .pub into " + dir}
	}
	return Finding{Keys, OK, fmt.Sprintf("%d trusted in %s", len(files), dir), ""}
}
