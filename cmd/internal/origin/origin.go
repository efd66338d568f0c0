// Package origin is the one long-lived service of dcfs: the index of releases,
// the tracker, the first seeder, the web seed, the status page and the metrics
// in one process; and publishing, which fills its store.
//
// It must never change a release once it is published, serve a piece whose
// hash it did not check since it started, or take a release from somebody who
// does not hold the publish token.
package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dcfs/cache"
	"dcfs/fs/durable"
	"dcfs/swarm"
	"dcfs/swarm/gate"
	"dcfs/swarm/tracker"
)

// ErrListen is wrapped when the HTTP address cannot be listened on.
var ErrListen = errors.New("cannot listen")

// ErrConfig says that the configuration cannot be used.
var ErrConfig = errors.New("bad configuration")

// ErrBusy says that another origin serves the state directory.
var ErrBusy = errors.New("the state directory is in use")

// Config describes an origin.
type Config struct {
	Listen           string     // HTTP, HOST:PORT; empty for :7070
	PeerListen       string     // BitTorrent, HOST:PORT; empty for :7071
	HTTP             string     // the page, /metrics and /healthz alone, without the gate; empty for none
	Gate             *gate.Gate // who may connect to the other two, and how; nil for everybody
	State            string
	PublishTokenFile string // empty: nobody can publish over HTTP
	TraceTokenFile   string // empty: no host can share its trace
	CacheBytes       int64  // RAM for pieces; 0 for 256 MiB
	Trade            bool   // exchange pieces with dcfs hosts by the plan of swarm/trade
	MaxPeers         int    // connections per release; 0 for the swarm's default
	Version          string // of this program
	Log              *slog.Logger
	OnReady          func(httpAddr, peerAddr string) // called once, when both ports answer
	OnBeat           func()                          // if set, called every second by what looks for releases
}

// The default addresses.
const (
	DefaultListen     = ":7070"
	DefaultPeerListen = ":7071"
	defaultCache      = 256 << 20
	shutdownTime      = 3 * time.Second
	// lockFile is held by the origin that serves a store: there is one. No
	// version starts with a dot.
	lockFile = ".lock"
)

// Run serves until ctx ends, then closes everything and returns nil.
func Run(ctx context.Context, c Config) error {
	if c.Listen == "" {
		c.Listen = DefaultListen
	}
	if c.PeerListen == "" {
		c.PeerListen = DefaultPeerListen
	}
	if c.Gate == nil {
		c.Gate = &gate.Gate{}
	}
	if c.CacheBytes <= 0 {
		c.CacheBytes = defaultCache
	}
	token, traceToken, err := readTokens(c)
	if err != nil {
		return err
	}
	lib, err := OpenLibrary(c.State, c.Log)
	if err != nil {
		return err
	}
	lock, err := durable.Disk{}.Lock(filepath.Join(lib.dir, lockFile))
	if errors.Is(err, durable.ErrHeld) {
		return fmt.Errorf("%w: %w; stop that origin, or choose another directory with --state", ErrBusy, err)
	}
	if err != nil {
		return fmt.Errorf("the origin's store: %w", err)
	}
	defer lock.Release()
	lis, err := c.Gate.ListenHTTP(c.Listen)
	if err != nil {
		return fmt.Errorf("%w on %s: %w; choose another address with --listen", ErrListen, c.Listen, err)
	}
	defer lis.Close()
	var open net.Listener
	if c.HTTP != "" {
		if open, err = net.Listen("tcp", c.HTTP); err != nil {
			return fmt.Errorf("%w on %s: %w; choose another address with --http", ErrListen, c.HTTP, err)
		}
		defer open.Close()
	}
	node, err := swarm.NewNode(swarm.NodeConfig{
		Listen: c.PeerListen, MaxPeers: c.MaxPeers, Version: c.Version, Trade: c.Trade, Origin: true, Gate: c.Gate, Log: c.Log,
	})
	if err != nil {
		return fmt.Errorf("%w; choose another address with --peer-listen", err)
	}
	defer node.Close()
	memory, err := cache.NewMemory(c.CacheBytes)
	if err != nil {
		return err
	}
	defer memory.Close()
	return serve(ctx, c, &service{
		shelf: newShelf(lib, node, memory, c.Log), token: token, traces: newTraces(lib), traceToken: traceToken, gate: c.Gate, log: c.Log, started: time.Now(),
		version: c.Version, requests: newRequests(),
	}, lis, open)
}

// prepare makes what answers requests.
func (s *service) prepare() {
	s.tracker = tracker.New(tracker.Config{Allow: s.shelf.serves, Seed: s.self})
	s.board, s.figures = s.newBoard(), s.metrics()
}

// serve runs the HTTP servers and the seeding side by side; open is where the
// gate does not apply, or nil.
func serve(ctx context.Context, c Config, s *service, lis, open net.Listener) error {
	s.prepare()
	if err := s.shelf.scan(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return s.shelf.run(ctx, func() {
			s.board.Look()
			if c.OnBeat != nil {
				c.OnBeat()
			}
		})
	})
	s.answer(ctx, group, lis, s.handler())
	if open != nil {
		mux := http.NewServeMux()
		s.watched(mux)
		s.answer(ctx, group, open, mux)
		c.Log.Info("the page and metrics for everybody", "http", open.Addr().String())
	}
	c.Log.Info("origin ready", "http", lis.Addr().String(), "peers", s.shelf.node.Addr(), "state", c.State)
	if c.OnReady != nil {
		c.OnReady(lis.Addr().String(), s.shelf.node.Addr())
	}
	return group.Wait()
}

// answer serves HTTP until ctx ends.
func (s *service) answer(ctx context.Context, group *errgroup.Group, lis net.Listener, h http.Handler) {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	group.Go(func() error {
		if err := server.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		if server.Shutdown(bye) != nil {
			return server.Close()
		}
		return nil
	})
}

// self is the address at which whoever asked the tracker can reach this
// origin's seeder: the one that the request came to, with the peers' port.
func (s *service) self(r *http.Request, _ [20]byte) (netip.AddrPort, bool) {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ip := local.AddrPort().Addr().Unmap().WithZone("")
	return netip.AddrPortFrom(ip, uint16(s.shelf.node.Port())), true
}

// maxToken bounds a token file in bytes.
const maxToken = 4 << 10

// readTokens reads the two tokens. They are two: hosts may not publish.
func readTokens(c Config) (publish, trace string, err error) {
	if publish, err = readToken("--publish-token-file", c.PublishTokenFile); err != nil {
		return "", "", err
	}
	if trace, err = readToken("--trace-token-file", c.TraceTokenFile); err != nil {
		return "", "", err
	}
	if trace != "" && trace == publish {
		return "", "", fmt.Errorf("%w: --publish-token-file and --trace-token-file hold the same token: hosts may not publish", ErrConfig)
	}
	return publish, trace, nil
}

func readToken(flag, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrConfig, flag, err)
	}
	token := strings.TrimSpace(string(bytes.TrimRight(b, "\n")))
	if token == "" || len(token) > maxToken {
		return "", fmt.Errorf("%w: %s %s: want one line with the token in it", ErrConfig, flag, path)
	}
	return token, nil
}
