// Package agent is the life of one release on one host: it finds the release,
// mounts it, fills it, materialises the copy, hands over, swaps the symlink,
// seeds for the linger window, and ends.
//
// It owns every goroutine of that life and joins the packages below it through
// one seam, the content of the payload stream. It must never parse a format,
// speak a protocol or decide an exit code itself.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"dcfs/cmd/internal/control"
	"dcfs/fs/tree"
	"dcfs/swarm/gate"
)

// How a life with a mount ends, after the linger.
const (
	// AtEndHandover turns the path native as soon as the copy is materialised
	// and ends when nobody uses the FUSE mount any more.
	AtEndHandover = "handover"
	// AtEndUnmount takes the mount away.
	AtEndUnmount = "unmount"
	// AtEndKeep serves the mount, from disk, until the process is told to end.
	AtEndKeep = "keep"
)

// Errors that callers tell apart.
var (
	// ErrNoSource says that nobody could be found to fetch from in time.
	ErrNoSource = errors.New("nobody to fetch from")
	// ErrStopped says that the process was told to end before the copy stood.
	ErrStopped = errors.New("stopped before the release was materialised")
	// ErrConfig says that the configuration contradicts itself.
	ErrConfig = errors.New("bad configuration")
)

// Config describes one life. Zero values pick the defaults named.
type Config struct {
	Release    string   // the RELEASE word: a version, URL, .torrent path or magnet
	Origins    []string // base URLs
	Mountpoint string   // empty: fetch without FUSE
	Dest       string   // empty: STATE/releases/VERSION
	State      string
	RunDir     string
	Activate   string // symlink to swap once materialised; empty for none

	Linger      time.Duration // that it seeds on in any case
	LingerMax   time.Duration // that it does at most, while peers need it; below 0 for ten times Linger
	AtEnd       string        // AtEnd…; empty for AtEndHandover
	ReadTimeout time.Duration // of one read of the mount; 0 for 30 s
	Wait        time.Duration // for metadata and a first peer; 0 for 60 s
	// DiskPatience is how long the disk may refuse pieces before the life
	// fails; reads are served from RAM and peers meanwhile. 0 for 60 s.
	DiskPatience time.Duration

	CacheBytes int64 // RAM for pieces; 0 for a share of what is free
	DownRate   int64 // bytes per second that Gate lets through, for `why`; 0 for no limit
	MaxPeers   int
	Trade      bool     // exchange pieces with dcfs hosts by the plan of swarm/trade
	Peers      []string // HOST:PORT
	WebSeeds   []string // URLs to ask before those of the release and its origins; config.NoWebSeed alone: none at all
	PeerListen string
	Gate       *gate.Gate           // who may connect, and how this host proves itself; nil for everybody and not at all
	HTTP       string               // HOST:PORT of the page, /metrics and /healthz; empty for none
	NoReports  bool                 // tell no origin how this host is
	Rack       string               // of this host; "" for none
	TraceOut   string               // file that takes the recorded first accesses
	Trace      string               // file with what to fetch first; empty: what the origin has, NoTrace: none
	TraceToken string               // for giving the origin a trace of this host; empty: it is given none
	Owner      *tree.Account        // who gets everything; nil: whom the release names
	Reuse      []string             // directories that may have bytes of the release, besides those that receipts name
	ReuseLinks bool                 // make files that an older release has in every respect hardlinks of it
	Lazy       bool                 // fetch only what is read
	NoSUID     bool                 // ignore setuid, setgid and file capabilities in the mount
	Hold       func(Heritage) error // called when the mount has changed hands or state, for a successor; may be nil
	Resume     *Heritage            // of a life that died with its process; nil: a new life
	PID        int                  // by which the outside knows the process; 0: its own

	TrustedDir       string
	InsecureUnsigned bool
	Version          string // of this program, told to peers
	Log              *slog.Logger
	// OnState, if set, is called at each change of state, in order.
	OnState func(control.State, control.Status)
	// OnBeat, if set, is called twice a second from when the swarm is joined, by
	// what asks store and swarm how they are: it stops when those hang.
	OnBeat func()
}

const (
	defaultReadTimeout = 30 * time.Second
	defaultWait        = 60 * time.Second
	// goodbye bounds what is done after the life's context ended.
	goodbye = 5 * time.Second
)

func (c *Config) fill() error {
	if c.AtEnd == "" {
		c.AtEnd = AtEndHandover
	}
	if c.AtEnd != AtEndHandover && c.AtEnd != AtEndUnmount && c.AtEnd != AtEndKeep {
		return fmt.Errorf("%w: --at-end %q: want handover, unmount or keep", ErrConfig, c.AtEnd)
	}
	if c.ReadTimeout <= 0 {
		c.ReadTimeout = defaultReadTimeout
	}
	if c.Wait <= 0 {
		c.Wait = defaultWait
	}
	if c.DiskPatience <= 0 {
		c.DiskPatience = defaultDiskPatience
	}
	if c.CacheBytes <= 0 {
		c.CacheBytes = defaultCache("/")
	}
	if c.CacheBytes < minCache {
		return fmt.Errorf("%w: --cache %d: want at least %d bytes", ErrConfig, c.CacheBytes, int64(minCache))
	}
	if c.Gate == nil {
		c.Gate = &gate.Gate{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.PID == 0 {
		c.PID = os.Getpid()
	}
	return nil
}

// Run lives one life. It returns nil when that reached done, also when ctx
// ended after the copy stood; the error says why it failed otherwise. Nothing
// that it mounted is left mounted, but what --at-end asks for.
func Run(ctx context.Context, c Config) error {
	if err := c.fill(); err != nil {
		return err
	}
	l := newLife(c)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	group, background := errgroup.WithContext(background)
	defer stop()
	if err := l.listen(background, group); err != nil {
		return err
	}
	if err := l.serveHTTP(background, group); err != nil {
		stop()
		return errors.Join(err, group.Wait())
	}
	l.enter(control.Announced, nil)
	err := l.run(ctx, background, group)
	if err != nil {
		l.enter(control.Failed, err)
	} else {
		l.enter(control.Done, nil)
	}
	stop()
	if bgErr := group.Wait(); err == nil {
		err = bgErr
	}
	return err
}

// run takes the life through its stages. What a stage opened is closed in
// reverse order: mount, swarm, store.
func (l *life) run(ctx, background context.Context, group *errgroup.Group) error {
	if err := errors.Join(l.readTrace(), l.preflight(ctx)); err != nil {
		return err
	}
	if err := l.openNode(ctx); err != nil {
		return err
	}
	defer l.closeNode()
	if err := l.acquire(ctx); err != nil {
		return err
	}
	l.startReports(background, group)
	if err := l.openContent(ctx); err != nil {
		return err
	}
	group.Go(func() error { return l.store.Run(background) })
	defer l.closeContent()
	// The tree is here, so it can be seen; what is read waits for the rest.
	defer l.leave()
	if err := l.mount(ctx); err != nil {
		return err
	}
	defer l.unmount()
	if err := l.join(ctx); err != nil {
		return err
	}
	group.Go(func() error { return l.beatOn(background) })
	group.Go(func() error { return l.rediscover(background) })
	defer l.startReuse(background)()
	group.Go(func() error { l.followTrace(background); return nil })
	group.Go(func() error { l.shareTrace(background); return nil })
	// Only now: on a busy disk it takes seconds, for which reads would wait, and
	// what is fetched ahead of them.
	if err := l.saveMetainfo(); err != nil {
		return err
	}
	if err := l.bequeath(); err != nil {
		return err
	}
	l.settle()
	group.Go(func() error { l.store.Scrub(background); return nil })
	return l.live(ctx)
}
