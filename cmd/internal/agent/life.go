package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dcfs/cache"
	"dcfs/cache/piece"
	"dcfs/cmd/internal/control"
	"dcfs/cmd/internal/metrics"
	"dcfs/fs"
	"dcfs/fs/activate"
	"dcfs/fs/materialise"
	"dcfs/fs/prefetch"
	"dcfs/fs/release"
	"dcfs/fs/reuse"
	"dcfs/swarm"
)

// life is one release on one host. The fields above mu are set by the stages
// in order and do not change afterwards.
type life struct {
	cfg      Config
	log      *slog.Logger
	started  time.Time
	node     *swarm.Node
	rel      *release.Release
	mapped   []byte // what rel shares memory with, if that is not on the heap
	trackers []string
	origins  []string        // base URLs of who has the release
	named    []string        // Config.Origins before names were looked up; nil if there are none
	hint     *prefetch.Trace // of --trace; nil for none
	whole    bool            // the copy stood already when the life began
	atStart  *piece.Set      // what a former process left; nil for nothing
	pulse    pulse
	reads    *metrics.Reads // nil without --http
	disk     disk
	written  *written // what a successor need not fetch; nil without one
	memory   *cache.Memory
	store    *cache.Store
	swarm    *swarm.Swarm
	place    fs.Place // where the mount goes
	inPlace  bool     // the copy comes to stand at the mountpoint itself
	// activated says that the link was swapped: whoever moves it afterwards
	// knows why, and a successor must not undo that.
	activated bool
	native    *native // the path shows the copy already; nil for a path to mount at
	server    *fs.Server
	trace     *prefetch.Recorder
	left      sync.Once                   // the swarm
	damaged   atomic.Bool                 // a piece that was on the disk was not right
	paused    atomic.Bool                 // the background prefetch, while the disk refuses
	finished  atomic.Bool                 // this life made the copy, and it stands
	local     atomic.Pointer[reuse.Reuse] // set once it is known what this host has already
	reusing   atomic.Bool                 // while it is being taken

	mu        sync.Mutex
	state     control.State
	since     time.Time
	reason    string
	lingerEnd time.Time
	lingerWhy string // why it goes on until then
	ready     bool   // the fields above may be read by status
	readyAt   time.Time
	rates     rates
	holdup    holdup
	turn      chan struct{} // closed when the state changes; nil while nobody waits
}

func newLife(c Config) *life {
	return &life{cfg: c, log: c.Log, started: time.Now()}
}

// listen serves the status socket.
func (l *life) listen(ctx context.Context, group *errgroup.Group) error {
	lis, err := control.Listen(control.SocketPath(l.cfg.RunDir, l.cfg.PID))
	if err != nil {
		return fmt.Errorf("the status socket: %w; choose another directory with --run", err)
	}
	group.Go(func() error { return lis.Serve(ctx, l) })
	return nil
}

// enter moves the life to another state and tells the world.
func (l *life) enter(s control.State, why error) {
	l.mu.Lock()
	l.state, l.since = s, time.Now()
	if why != nil {
		l.reason = why.Error()
	}
	if l.turn != nil {
		close(l.turn)
		l.turn = nil
	}
	l.mu.Unlock()
	l.log.Info("state", "state", s, "release", l.name()) // who called Run tells why it failed
	if l.cfg.OnState != nil {
		l.cfg.OnState(s, l.Status())
	}
}

func (l *life) name() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rel != nil {
		return l.rel.Name
	}
	return l.cfg.Release
}

// adopt takes the release that was found, and the names that follow from it.
func (l *life) adopt(rel *release.Release, trackers []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rel = rel
	seen := make(map[string]bool)
	for _, t := range trackers {
		if !seen[t] {
			seen[t] = true
			l.trackers = append(l.trackers, t)
		}
	}
	if l.cfg.Dest == "" {
		l.cfg.Dest = filepath.Join(l.cfg.State, "releases", filepath.FromSlash(rel.Name))
	}
}

// join enters the swarm. What is fetched from it without being read is for
// startReuse to say.
func (l *life) join(ctx context.Context) error {
	s, err := l.node.Join(ctx, swarm.Spec{
		InfoHash: l.rel.InfoHash, Info: l.rel.Info, Total: l.rel.Layout.Total, Trackers: l.trackers,
		Peers: l.cfg.Peers, Store: l.store, Rack: l.cfg.Rack, WebSeeds: l.webSeeds(),
	})
	if err != nil {
		return err
	}
	l.swarm = s
	l.store.Attach(s)
	l.mu.Lock()
	l.ready, l.readyAt = true, time.Now()
	l.holdup.at = l.started
	l.holdup.judged(control.Bound{Kind: control.BoundStart}, l.readyAt)
	l.mu.Unlock()
	return nil
}

// leave ends the exchange with peers; the second call does nothing.
func (l *life) leave() { l.left.Do(l.leaveSwarm) }

func (l *life) leaveSwarm() {
	if l.swarm == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	l.store.Attach(nil)
	l.swarm.Leave(ctx)
}

// mount shows the release at the mountpoint; reads are served from now on.
func (l *life) mount(ctx context.Context) error {
	if l.cfg.Mountpoint == "" {
		return nil
	}
	if l.native != nil {
		return l.useNative(ctx)
	}
	cfg := fs.Config{
		Tree: l.rel.Tree, Content: l.content(), Place: l.place, Version: l.rel.Name,
		ReadTimeout: l.cfg.ReadTimeout, NoSUID: l.cfg.NoSUID,
		Resident: l.store.VerifiedBytes, Log: l.log,
	}
	if l.startRecorder(); l.trace != nil {
		cfg.OnRead = l.record
	}
	server, err := l.serve(ctx, cfg)
	if err != nil {
		return err
	}
	l.server = server
	l.enter(control.Mounted, nil)
	return nil
}

// unmount ends the mount, however the life ended.
func (l *life) unmount() {
	if l.native != nil {
		l.leaveNative()
	}
	if l.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	if err := l.server.Unmount(ctx); err != nil {
		l.log.Error("the mount could not be taken away", "mountpoint", l.cfg.Mountpoint, "cause", err)
	}
	l.saveTrace()
}

// live takes the release from mounted to the end of its linger.
func (l *life) live(ctx context.Context) error {
	if err := l.fill(ctx); err != nil {
		return err
	}
	l.enter(control.Materialised, nil)
	if l.cfg.Activate != "" && !l.activated {
		previous, err := activate.Swap(l.cfg.Activate, l.cfg.Dest, activate.Options{
			State: l.cfg.State, Allowed: func(string) error { return nil }, // it was finished just now
		})
		if err != nil {
			return err
		}
		l.log.Info("activated", "link", l.cfg.Activate, "target", l.cfg.Dest, "previous", previous)
		l.activated = true
		if err := l.bequeath(); err != nil {
			return err
		}
	}
	// After the swap: a life that fails leaves no mount behind.
	if err := l.handOver(); err != nil {
		return err
	}
	l.linger(ctx)
	return l.finish(ctx)
}

// checkStanding refuses a copy that stood already and proved damaged: a
// finished release is never written to.
func (l *life) checkStanding() error {
	if !l.whole || !l.damaged.Load() {
		return nil
	}
	return fmt.Errorf("%w: %s was finished as %s and has changed since; see what differs and mend it: dcfs verify %s %s --repair",
		materialise.ErrForeign, l.cfg.Dest, l.rel.Name, l.cfg.Release, l.cfg.Dest)
}

func (l *life) orStopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && (errors.Is(err, context.Cause(ctx)) || errors.Is(err, context.Canceled)) {
		return fmt.Errorf("%w: start again to resume", ErrStopped)
	}
	return err
}

// handOver turns the mounted path native when that is how the life shall end.
func (l *life) handOver() error {
	if l.server == nil || l.cfg.AtEnd != AtEndHandover || l.server.HandedOver() {
		return nil
	}
	return l.server.Handover(l.cfg.Dest)
}

// finish waits, after the linger, for what --at-end says. The deferred closing
// of the stages does the rest.
func (l *life) finish(ctx context.Context) error {
	l.leave()
	if l.server == nil || ctx.Err() != nil {
		return nil
	}
	switch l.cfg.AtEnd {
	case AtEndKeep:
		l.log.Info("the linger is over; the mount stays until the process is told to end", "mountpoint", l.cfg.Mountpoint)
		select {
		case <-ctx.Done():
		case <-l.server.Done():
		}
	case AtEndHandover:
		if err := l.server.Idle(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}
