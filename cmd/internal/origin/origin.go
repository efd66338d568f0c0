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
	Listen           string // HTTP, HOST:PORT; empty for :7070
	PeerListen       string // BitTorrent, HOST:PORT; empty for :7071
	State            string
	PublishTokenFile string // empty: nobody can publish over HTTP
	TraceTokenFile   string // empty: no host can share its trace
	CacheBytes       int64  // RAM for pieces; 0 for 256 MiB
	UpRate           int64  // bytes per second to all peers; 0 for no limit
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
	lis, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("%w on %s: %w; choose another address with --listen", ErrListen, c.Listen, err)
	}
	defer lis.Close()
	node, err := swarm.NewNode(swarm.NodeConfig{
		Listen: c.PeerListen, UpRate: c.UpRate, MaxPeers: c.MaxPeers, Version: c.Version, Trade: c.Trade, Origin: true, Log: c.Log,
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
		shelf: newShelf(lib, node, memory, c.Log), token: token, traces: newTraces(lib), traceToken: traceToken, log: c.Log, started: time.Now(),
		version: c.Version, requests: newRequests(),
	}, lis)
}

// serve runs the HTTP server and the seeding side by side.
func serve(ctx context.Context, c Config, s *service, lis net.Listener) error {
	s.tracker = tracker.New(tracker.Config{Allow: s.shelf.serves, Seed: s.self})
	s.board = s.newBoard()
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
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
	c.Log.Info("origin ready", "http", lis.Addr().String(), "peers", s.shelf.node.Addr(), "state", c.State)
	if c.OnReady != nil {
		c.OnReady(lis.Addr().String(), s.shelf.node.Addr())
	}
	return group.Wait()
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
