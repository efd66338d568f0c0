package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// probeTimeout bounds every look at a path that may lie on a dead mount.
const probeTimeout = 3 * time.Second

// Place is a mountpoint that Prepare found fit.
type Place struct {
	Path string // absolute, without symlinks
}

// Prepare checks all that Mount needs, before anything starts: the right to
// mount, and a mountpoint that is an empty directory without a mount. The
// mount of a dead FUSE process is detached. Errors wrap ErrUnavailable or
// ErrMountpoint and say what to try.
func Prepare(ctx context.Context, mountpoint string, log *slog.Logger) (Place, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := available(); err != nil {
		return Place{}, err
	}
	path, err := locate(ctx, mountpoint, log)
	if errors.Is(err, os.ErrNotExist) {
		return Place{}, fmt.Errorf("%w: %s does not exist; create it: mkdir -p %q", ErrMountpoint, mountpoint, mountpoint)
	}
	if err != nil {
		return Place{}, err
	}
	return Place{Path: path}, within(ctx, func() error { return emptyDir(path) })
}

// CoveredError says that something other than a FUSE filesystem is mounted at
// the mountpoint. It wraps ErrMountpoint.
type CoveredError struct {
	Path         string // absolute, without symlinks
	Source, Type string // as in the table of mounts
}

func (e *CoveredError) Error() string {
	return fmt.Sprintf("%v: %s is mounted at %s (%s); choose another directory%s", ErrMountpoint, e.Source, e.Path, e.Type, orUnmount(e.Path))
}

func (e *CoveredError) Unwrap() error { return ErrMountpoint }

// orUnmount is the other way, which nobody is told to take with the root.
func orUnmount(path string) string {
	if path == "/" {
		return ""
	}
	return ", or free this one: umount " + path
}

// LiveError says that a process serves a dcfs mount at the mountpoint. It wraps
// ErrMountpoint.
type LiveError struct {
	Path   string // absolute, without symlinks
	Source string // as in the table of mounts
}

func (e *LiveError) Error() string {
	return fmt.Sprintf("%v: %s is live at %s; see dcfs status, or choose another mountpoint", ErrMountpoint, e.Source, e.Path)
}

func (e *LiveError) Unwrap() error { return ErrMountpoint }

// available returns why this process cannot mount.
func available() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return fmt.Errorf("%w: capget: %w", ErrUnavailable, err)
	}
	if caps[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return fmt.Errorf("%w: mounting needs CAP_SYS_ADMIN; run as root, or use dcfs fetch, which needs no mount", ErrUnavailable)
	}
	fd, err := openDevice()
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// locate resolves the mountpoint, which may be missing, and frees it from dead
// mounts. Only the parent is resolved before the mounts are looked at: to look
// at the mountpoint itself would be to ask whoever serves it.
func locate(ctx context.Context, mountpoint string, log *slog.Logger) (string, error) {
	path, err := filepath.Abs(mountpoint)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrMountpoint, mountpoint, err)
	}
	for range 40 { // as many symlinks as the kernel follows
		dir, err := resolve(ctx, filepath.Dir(path))
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(path))
		if err := free(ctx, path, log); err != nil {
			return "", err
		}
		target, err := os.Readlink(path)
		if errors.Is(err, unix.EINVAL) {
			return path, nil // no symlink
		}
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrMountpoint, err)
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = filepath.Clean(target)
	}
	return "", fmt.Errorf("%w: %s: too many symlinks", ErrMountpoint, mountpoint)
}

func resolve(ctx context.Context, dir string) (real string, err error) {
	var out string
	err = within(ctx, func() (err error) { out, err = filepath.EvalSymlinks(dir); return err })
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrMountpoint, err)
	}
	return out, nil
}

// free returns nil when nothing is mounted at path, after it detached what
// dead processes left there.
func free(ctx context.Context, path string, log *slog.Logger) error {
	for {
		m, err := topMount(path)
		if err != nil || m == nil {
			return err
		}
		if !strings.HasPrefix(m.FSType, "fuse") {
			return &CoveredError{Path: path, Source: m.Source, Type: m.FSType}
		}
		dead, err := detachDead(ctx, path)
		switch {
		case dead && err == nil:
		case dead:
			return fmt.Errorf("%w: the mount of a dead process at %s cannot be detached: %w", ErrMountpoint, path, err)
		case errors.Is(err, errChanged):
			continue
		case errors.Is(err, errNoAnswer):
			return fmt.Errorf("%w: %s (%s) is mounted at %s and does not answer; see who serves it, or detach it: umount -l %s",
				ErrMountpoint, m.Source, m.FSType, path, path)
		case m.FSType == fuseType:
			return &LiveError{Path: path, Source: m.Source}
		default:
			return fmt.Errorf("%w: %s (%s) is mounted at %s; choose another directory%s", ErrMountpoint, m.Source, m.FSType, path, orUnmount(path))
		}
		log.Warn("detached the mount of a dead process", "mountpoint", path, "source", m.Source, "type", m.FSType)
	}
}

// topMount returns the mount that path leads to when it is a mountpoint, and
// nil when it is none. mountinfo lists mounts by age; the topmost of several
// at one path is the one that is no other's parent.
func topMount(path string) (*mountinfo.Info, error) {
	all, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != path, false })
	if err != nil {
		return nil, fmt.Errorf("%w: read the table of mounts: %w", ErrMountpoint, err)
	}
	below := make(map[int]bool, len(all))
	for _, m := range all {
		below[m.Parent] = true
	}
	for _, m := range all {
		if !below[m.ID] {
			return m, nil
		}
	}
	return nil, nil
}

func emptyDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMountpoint, err)
	}
	defer d.Close()
	if st, err := d.Stat(); err != nil || !st.IsDir() {
		return fmt.Errorf("%w: %s is not a directory; choose another path", ErrMountpoint, path)
	}
	names, err := d.Readdirnames(1)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", ErrMountpoint, err)
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: %s is not empty (%q is in it); choose another path or empty it", ErrMountpoint, path, names[0])
	}
	return nil
}

var errNoAnswer = errors.New("no answer")

// within runs f, which may hang on a dead filesystem, and gives up on it after
// probeTimeout. f then ends when the kernel lets it.
func within(ctx context.Context, f func() error) error {
	ctx, stop := context.WithTimeoutCause(ctx, probeTimeout, errNoAnswer)
	defer stop()
	result := make(chan error, 1)
	go func() { result <- f() }()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
