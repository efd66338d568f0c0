package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	device   = "/dev/fuse"
	fuseType = "fuse.dcfs"

	maxTransfer = 1 << 20 // bytes of one READ

	// moveMountBeneath is MOVE_MOUNT_BENEATH of linux/mount.h (Linux 6.5).
	moveMountBeneath = 0x200
	moveByFD         = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
)

// fuseMount is a mount that is not attached anywhere yet.
type fuseMount struct {
	fd           int // from fsmount; closing it before attach destroys the mount
	id           int // as in the first column of mountinfo
	major, minor uint32
}

// openDevice opens /dev/fuse. Children must not inherit it: as long as one of
// them lives, the mount of a dead daemon hangs instead of failing.
func openDevice() (int, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%w: open %s: %w; load the module (modprobe fuse) or give the container the device",
			ErrUnavailable, device, err)
	}
	return fd, nil
}

// newFuseMount creates a superblock that talks to dev and a mount of it that
// nobody can see. From here on the kernel's INIT waits to be read from dev.
func newFuseMount(cfg *Config, dev int) (fuseMount, error) {
	fsfd, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fuseMount{}, mountError("fsopen", err)
	}
	defer unix.Close(fsfd)
	if err := configure(fsfd, cfg, dev); err != nil {
		return fuseMount{}, mountError("fsconfig", err)
	}
	attrs := unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOATIME
	if cfg.NoSUID {
		attrs |= unix.MOUNT_ATTR_NOSUID
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return fuseMount{}, mountError("fsmount", err)
	}
	m := fuseMount{fd: fd}
	if err := m.identify(); err != nil {
		unix.Close(fd)
		return fuseMount{}, err
	}
	return m, nil
}

func configure(fsfd int, cfg *Config, dev int) error {
	for _, o := range [][2]string{
		{"source", cfg.FSName},
		{"subtype", "dcfs"},
		{"fd", strconv.Itoa(dev)},
		{"rootmode", "40000"},
		{"user_id", "0"},
		{"group_id", "0"},
		{"max_read", strconv.Itoa(maxTransfer)},
	} {
		if err := unix.FsconfigSetString(fsfd, o[0], o[1]); err != nil {
			return fmt.Errorf("%s=%s: %w", o[0], o[1], err)
		}
	}
	for _, flag := range []string{"ro", "allow_other", "default_permissions"} {
		if err := unix.FsconfigSetFlag(fsfd, flag); err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
	}
	return unix.FsconfigCreate(fsfd)
}

func mountError(call string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w: %s: %w; run as root on Linux 5.12 or newer with FUSE in the kernel", ErrUnavailable, call, err)
	}
	return fmt.Errorf("mount: %s: %w", call, err)
}

// identify learns the mount's number and device. AT_STATX_DONT_SYNC makes the
// kernel answer without asking the daemon, which does not serve yet.
func (m *fuseMount) identify() error {
	var st unix.Statx_t
	if err := unix.Statx(m.fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
		return fmt.Errorf("mount: statx: %w", err)
	}
	m.major, m.minor = st.Dev_major, st.Dev_minor
	id, err := mountID(m.fd)
	m.id = id
	return err
}

// setReadAhead sets how far the kernel reads ahead on this mount, in KiB. It
// has an effect only after INIT, which sets the default.
func (m *fuseMount) setReadAhead(kib int) error {
	name := filepath.Join("/sys/class/bdi", fmt.Sprintf("%d:%d", m.major, m.minor), "read_ahead_kb")
	return os.WriteFile(name, []byte(strconv.Itoa(kib)), 0)
}

// mountID returns the number of the mount that fd is on, without touching the
// filesystem mounted there.
func mountID(fd int) (int, error) {
	name := "/proc/self/fdinfo/" + strconv.Itoa(fd)
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	id, ok := parseMountID(string(b))
	if !ok {
		return 0, fmt.Errorf("%s has no mnt_id", name)
	}
	return id, nil
}

func parseMountID(fdinfo string) (int, bool) {
	_, rest, ok := strings.Cut(fdinfo, "mnt_id:")
	line, _, _ := strings.Cut(rest, "\n")
	id, err := strconv.Atoi(strings.TrimSpace(line))
	return id, ok && err == nil
}

// openMount opens the root of the topmost mount at path and returns its number.
// Opening with O_PATH sends no request, even on our own mount.
func openMount(path string) (fd, id int, err error) {
	fd, err = unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, 0, fmt.Errorf("open %s: %w", path, err)
	}
	if id, err = mountID(fd); err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, id, nil
}

func setPrivate(fd int) error {
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
}

// requestTimeout returns the kernel's own limit on requests, in seconds; 0 is
// none. When one is late, the kernel aborts the whole connection.
func requestTimeout() int {
	b, err := os.ReadFile("/proc/sys/fs/fuse/default_request_timeout")
	if err != nil {
		return 0 // a kernel without the limit
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// abort breaks the connection of the FUSE device with this minor number:
// whoever waits on it gets ECONNABORTED or ENOTCONN. It works on mounts that
// no path leads to any more, and needs no fusectl mounted.
func abort(minor uint32) error {
	fsfd, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen fusectl: %w", err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return fmt.Errorf("fsconfig fusectl: %w", err)
	}
	dir, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount fusectl: %w", err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, fmt.Sprintf("%d/abort", minor), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // it has ended by itself
	}
	if err != nil {
		return fmt.Errorf("open abort of connection %d: %w", minor, err)
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("1"))
	return err
}
