package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

const (
	retryEvery = 50 * time.Millisecond  // between attempts to unmount what is busy
	grace      = 250 * time.Millisecond // for the serve loop to see that the mount is gone
	lastWait   = 5 * time.Second        // for it to end after an abort
)

// Server is a mounted release. Its methods are safe for concurrent use.
type Server struct {
	cfg  Config
	log  *slog.Logger
	path string
	at   int // O_PATH of the directory below the mount
	mnt  fuseMount
	raw  *raw
	conn *connection
	done chan struct{}
	// resumed says that another process served the mount before: what the
	// kernel holds of it is not known.
	resumed bool

	mu     sync.Mutex
	where  string // the mount: path, until Replace
	bindID int    // the mount on top after Handover; 0 before
	gone   bool   // the mount was detached from the path
}

// Mount makes the tree visible at cfg.Place and serves it until the mount is
// gone: by Unmount, or by somebody's umount. The mount appears only when it is
// served. ctx covers the mounting alone. Errors wrap ErrUnavailable when this
// host cannot mount.
func Mount(ctx context.Context, cfg Config) (*Server, error) {
	cfg.setDefaults()
	at, err := unix.Open(cfg.Place.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: open %s: %w", ErrMountpoint, cfg.Place.Path, err)
	}
	s := &Server{cfg: cfg, log: cfg.Log, path: cfg.Place.Path, where: cfg.Place.Path, at: at, done: make(chan struct{})}
	if err := s.start(); err != nil {
		unix.Close(at)
		return nil, err
	}
	if err := s.attach(ctx); err != nil {
		<-s.done
		return nil, err
	}
	return s, nil
}

// start creates the mount, unattached, and serves it.
func (s *Server) start() error {
	dev, err := openDevice()
	if err != nil {
		return err
	}
	if s.mnt, err = newFuseMount(&s.cfg, dev); err != nil {
		unix.Close(dev)
		return err
	}
	if err := s.serveFrom(dev, func() error { return s.conn.begin() }); err != nil {
		unix.Close(s.mnt.fd)
		return fmt.Errorf("mount: talk to the kernel: %w", err)
	}
	return nil
}

// serveFrom answers what comes from dev once begin has agreed with the kernel.
// It owns dev from here on.
func (s *Server) serveFrom(dev int, begin func() error) error {
	ctx, stop := context.WithCancelCause(context.Background()) // ends with the mount
	s.raw = newRaw(ctx, &s.cfg)
	s.conn = newConnection(dev, s.raw, s.options(), s.log)
	if err := begin(); err != nil {
		stop(err)
		unix.Close(dev)
		return err
	}
	go s.serve(stop)
	return nil
}

// serve runs until the kernel ends the connection, which it does when the last
// user of the last mount is gone. It is the owner of everything that closes.
func (s *Server) serve(stop context.CancelCauseFunc) {
	s.conn.serve(func() { stop(ErrUnmounted) })
	unix.Close(s.at)
	close(s.done)
}

// attach moves the mount into place. On an error the mount is gone, and the
// serve loop ends.
func (s *Server) attach(ctx context.Context) error {
	defer unix.Close(s.mnt.fd)
	if n := requestTimeout(); n != 0 {
		s.log.Warn("the kernel aborts a FUSE mount when a request takes too long; set fs.fuse.default_request_timeout to 0",
			"default_request_timeout", n, "read_timeout", s.cfg.ReadTimeout)
	}
	if err := s.mnt.setReadAhead(s.cfg.ReadAhead); err != nil {
		s.log.Warn("cannot set the readahead; sequential reads of missing content will be slow", "cause", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("mount %s: %w", s.path, err)
	}
	if err := unix.MoveMount(s.mnt.fd, "", s.at, "", moveByFD); err != nil {
		return fmt.Errorf("mount %s: move_mount: %w", s.path, err)
	}
	return nil
}

func (s *Server) options() *fuse.MountOptions {
	return &fuse.MountOptions{
		AllowOther: true, FsName: s.cfg.FSName, Name: "dcfs",
		MaxWrite: maxTransfer,
		// At the default of 12, a dozen readers that wait for missing pieces
		// stop everybody's readahead. Equal thresholds: no throttling before.
		MaxBackground: 1024, CongestionThreshold: 1024,
		DisableSplice: true, EnableSymlinkCaching: true, ExplicitDataCacheControl: true,
		EnableAcl:    s.raw.acls,
		Logger:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		PanicHandler: s.panicked,
	}
}

func (s *Server) panicked(v any) fuse.Status {
	s.log.Error("panic in a FUSE request", "panic", v, "stack", string(debug.Stack()))
	return fuse.EIO
}

// Path returns where the mount is.
func (s *Server) Path() string { return s.path }

// Done is closed when the mount has ended and nothing of it is left in this
// process, whoever ended it.
func (s *Server) Done() <-chan struct{} { return s.done }

// Wait returns when Done is closed, or with ctx's error.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Unmount takes the mount away. While somebody uses it, it tries again until
// ctx ends; then it detaches the mount, so that the path is free, and aborts
// what is still in use: readers get an error. After a Handover it waits the
// same way until nobody uses the covered mount, and leaves the directory that
// was handed over to in place. It returns nil when the serve loop has ended.
func (s *Server) Unmount(ctx context.Context) error {
	err := s.detach(ctx)
	if err == nil {
		_ = s.Wait(ctx)
	}
	if s.waitFor(grace) {
		return err
	}
	s.log.Warn("the mount is still in use; aborting it", "mountpoint", s.path)
	if aerr := abort(s.mnt.minor); aerr != nil {
		err = errors.Join(err, fmt.Errorf("abort the mount %s: %w", s.path, aerr))
	}
	if !s.waitFor(lastWait) {
		err = errors.Join(err, fmt.Errorf("unmount %s: requests are still running after %s", s.path, lastWait))
	}
	return err
}

// waitFor reports whether the serve loop ends within d.
func (s *Server) waitFor(d time.Duration) bool {
	ctx, stop := context.WithTimeout(context.Background(), d)
	defer stop()
	return s.Wait(ctx) == nil
}

// detach removes the mount from its path.
func (s *Server) detach(ctx context.Context) error {
	if s.HandedOver() {
		if err := s.Idle(ctx); err != nil {
			s.log.Warn("the covered mount is still in use; detaching it", "mountpoint", s.path, "cause", err)
		}
		return s.uncover()
	}
	for {
		err := s.umount(0)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-s.done:
			return nil
		case <-time.After(retryEvery):
		case <-ctx.Done():
			s.log.Warn("the mount is in use; detaching it lazily", "mountpoint", s.path, "cause", ctx.Err())
			return s.umount(unix.MNT_DETACH)
		}
	}
}

// umount takes our mount off its path if it is the topmost there, and says nil
// when somebody else has done that.
func (s *Server) umount(flags int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || !s.attached() {
		s.gone = true
		return nil
	}
	fd, id, err := openMount(s.where)
	if err != nil {
		return err
	}
	unix.Close(fd)
	if id != s.mnt.id {
		return fmt.Errorf("%w: something else is mounted over %s; unmount that first", ErrMountpoint, s.where)
	}
	if err := unix.Unmount(s.where, flags|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", s.where, err)
	}
	s.gone = true
	return nil
}

// attached reports whether the mount is in this namespace's table of mounts.
func (s *Server) attached() bool {
	m, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.ID != s.mnt.id, m.ID == s.mnt.id })
	return err != nil || len(m) > 0
}

func (s *Server) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// HandedOver reports whether the path shows the directory of a Handover.
func (s *Server) HandedOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bindID != 0
}
