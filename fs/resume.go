package fs

import (
	"errors"
	"fmt"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// ErrGone is wrapped by Resume when the mount is not there any more.
var ErrGone = errors.New("the mount has ended")

// Held is a mount in the hands of whoever keeps it while the process that
// serves it may die. As long as a copy of Device is open, requests wait for a
// successor instead of failing.
type Held struct {
	Device *os.File // of /dev/fuse
	Below  *os.File // the directory below the mount, opened with O_PATH
	State  State
}

// State is what a successor has to know besides. Its JSON goes from one version
// of the program to the next.
type State struct {
	Path  string `json:"path"`
	Init  []byte `json:"init"` // the kernel's INIT request
	Mount int    `json:"mount"`
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
}

// ErrNoResume is wrapped by Hold when the kernel cannot let another process go
// on with a mount: that needs Linux 6.9.
var ErrNoResume = errors.New("this kernel does not send requests again")

// Hold returns a copy of what the mount hangs on. The caller closes both files.
// Errors wrap ErrNoResume when it would be of no use.
func (s *Server) Hold() (Held, error) {
	if s.conn.settings.Flags64()&fuse.CAP_HAS_RESEND == 0 {
		return Held{}, ErrNoResume
	}
	var files [2]*os.File
	for i, fd := range []int{s.conn.dev, s.at} {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			if i > 0 {
				files[0].Close()
			}
			return Held{}, fmt.Errorf("hold the mount %s: %w", s.path, err)
		}
		files[i] = os.NewFile(uintptr(dup), s.path)
	}
	return Held{Device: files[0], Below: files[1], State: State{
		Path: s.path, Init: s.conn.init, Mount: s.mnt.id, Major: s.mnt.major, Minor: s.mnt.minor,
	}}, nil
}

// Ended reports whether the mount is not there any more. It asks nobody.
func (h Held) Ended() bool {
	p := []unix.PollFd{{Fd: int32(h.Device.Fd())}}
	_, err := unix.Poll(p, 0)
	return err == nil && p[0].Revents&unix.POLLERR != 0
}

// Close closes both files. It may be called more than once.
func (h Held) Close() {
	for _, f := range []*os.File{h.Device, h.Below} {
		if f != nil {
			f.Close()
		}
	}
}

// Resume serves a mount whose process is dead: what that one did not answer is
// asked again, and readers that waited for it go on. cfg.Tree has to be the
// very tree that was mounted: the kernel knows its entries by number. cfg.Place
// does not count. Resume keeps copies of h's files; the caller closes h. Errors
// wrap ErrGone when there is nothing to serve.
func Resume(cfg Config, h Held) (*Server, error) {
	cfg.setDefaults()
	s := &Server{cfg: cfg, log: cfg.Log, path: h.State.Path, where: h.State.Path, resumed: true, done: make(chan struct{}),
		mnt: fuseMount{fd: -1, id: h.State.Mount, major: h.State.Major, minor: h.State.Minor}}
	if err := s.findCover(); err != nil {
		return nil, err
	}
	var fds [2]int
	for i, f := range []*os.File{h.Device, h.Below} {
		dup, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("resume the mount %s: %w", s.path, err)
		}
		fds[i] = dup
	}
	s.at = fds[1]
	if err := s.serveFrom(fds[0], func() error { return s.conn.goOn(h.State.Init) }); err != nil {
		unix.Close(s.at)
		return nil, fmt.Errorf("resume the mount %s: %w", s.path, err)
	}
	return s, nil
}

// findCover looks the mount up in the table of mounts, and what lies on top of
// it: the dead process may have handed it over at its last instant.
func (s *Server) findCover() error {
	all, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != s.path, false })
	if err != nil {
		return fmt.Errorf("resume the mount %s: %w", s.path, err)
	}
	found := false
	for _, m := range all {
		switch {
		case m.ID == s.mnt.id:
			found = true
		case m.Parent == s.mnt.id:
			s.bindID = m.ID
		}
	}
	if !found {
		return fmt.Errorf("%w: %s", ErrGone, s.path)
	}
	return nil
}
