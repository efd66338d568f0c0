// Package swarm moves pieces between hosts with the BitTorrent protocol. It is
// the only package that meets the torrent client library.
//
// A Node is one listening port; it joins one Swarm for each release. Pieces
// come and go through a Store, which decides what is verified. The package
// must never write to a disk, know a file of a release, or hand out a byte that
// the Store did not call verified. It opens connections only to peers that the
// trackers, the configuration or other peers of the same swarm name; it uses
// no DHT, no port mapping and no local discovery.
package swarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/anacrolix/torrent"
	"golang.org/x/time/rate"

	"dcfs/swarm/gate"
)

// ErrListen is wrapped when no port could be listened on.
var ErrListen = errors.New("cannot listen for peers")

// The ports that a node tries when none is configured.
const (
	FirstPort = 7072
	LastPort  = 7171
)

// NodeConfig describes a node. Zero values pick the defaults named.
type NodeConfig struct {
	// Listen is HOST:PORT; HOST may be empty for every address, PORT 0 picks
	// any free port. "" takes the first free port of FirstPort to LastPort.
	Listen   string
	MaxPeers int // connections per swarm; 0 for 80
	// Unverified bounds the bytes that are requested ahead of verification in
	// all swarms together; 0 for 64 MiB.
	Unverified int64
	Version    string // announced to peers, as in "dcfs/VERSION"
	Origin     bool   // announced to peers, too
	// Trade makes dcfs hosts that have it set exchange pieces by the plan of
	// package trade. With everybody else they speak as ever.
	Trade bool
	Gate  *gate.Gate // who may connect, and how fast; nil for everybody
	Log   *slog.Logger
}

// Node is a BitTorrent peer with one listening port. It is safe for concurrent
// use.
type Node struct {
	client *torrent.Client
	gate   *gate.Gate     // nil: everybody may connect
	lis    *gate.Listener // nil: the library listens
	http   *http.Client   // for trackers
	depth  *depth
	bans   *bans
	trail  *trail
	log    *slog.Logger

	oversize atomic.Int64 // bytes of metadata that a peer has, above MaxExchanged
	contacts contacts
	ledgers  ledgers

	exchanges  sync.Map // info-hash to its *exchange
	unverified int64    // NodeConfig.Unverified
	trades     bool     // NodeConfig.Trade

	open  context.Context // ends with Close
	close context.CancelFunc
	tasks sync.WaitGroup // the announcers of all swarms
}

// NewNode listens and returns a node; Close ends it. The error wraps ErrListen
// when the port is taken or the address is not this host's.
func NewNode(cfg NodeConfig) (*Node, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Listen != "" {
		return listen(cfg, cfg.Listen)
	}
	for port := FirstPort; port <= LastPort; port++ {
		n, err := listen(cfg, ":"+strconv.Itoa(port))
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
			return n, err
		}
	}
	return nil, fmt.Errorf("%w: every port from %d to %d is taken; name one with --peer-listen", ErrListen, FirstPort, LastPort)
}

func listen(cfg NodeConfig, addr string) (*Node, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrListen, addr, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: the port is no number from 0 to 65535", ErrListen, addr)
	}
	n := &Node{depth: newDepth(), bans: newBans(cfg.Log), gate: cfg.Gate, http: trackerClient(cfg.Gate), log: cfg.Log}
	client := clientConfig(cfg, host, int(port))
	client.IPBlocklist = n.bans
	n.bans.install(&client.Callbacks)
	n.depth.install(&client.Callbacks)
	guardMessages(&client.Callbacks)
	n.noteSizes(&client.Callbacks)
	n.contacts.install(&client.Callbacks)
	n.ledgers.install(&client.Callbacks)
	n.trail = newTrail(&n.contacts)
	n.trail.install(&client.Callbacks)
	if n.trades = cfg.Trade; cfg.Trade {
		n.installExchange(&client.Callbacks)
	}
	n.unverified = client.MaxUnverifiedBytes
	if err := n.listenWith(client, addr); err != nil {
		return nil, fmt.Errorf("%w on %s: %w", ErrListen, addr, err)
	}
	n.open, n.close = context.WithCancel(context.Background())
	return n, nil
}

// clientConfig sets the library up for a data centre: plain TCP, short timers,
// nothing that finds peers outside the swarm. docs/architecture.md gives the
// reason for each setting.
func clientConfig(cfg NodeConfig, host string, port int) *torrent.ClientConfig {
	c := torrent.NewDefaultClientConfig()
	c.ListenHost = func(string) string { return host }
	c.ListenPort = port
	// Without one the library opens a database in the working directory.
	c.DefaultStorage = newStoreClient(noStore{}, nil)
	if ip := net.ParseIP(host); ip != nil {
		c.DisableIPv6, c.DisableIPv4 = ip.To4() != nil, ip.To4() == nil
	}
	c.NoDHT, c.DisableUTP, c.NoDefaultPortForwarding = true, true, true
	c.DisableTrackers = true // see announce.go
	c.DisableWebtorrent, c.DisableWebseeds = true, true
	c.Seed = true
	c.DisableAcceptRateLimiting = true
	c.DropMutuallyCompletePeers = true
	c.DropDuplicatePeerIds = true // two hosts that dial each other keep one connection
	c.HeaderObfuscationPolicy = torrent.HeaderObfuscationPolicy{}

	c.DialRateLimiter = rate.NewLimiter(500, 100)
	c.NominalDialTimeout = 3 * time.Second
	c.MinDialTimeout = time.Second
	c.HandshakesTimeout = 4 * time.Second
	c.HalfOpenConnsPerTorrent = 50
	c.EstablishedConnsPerTorrent = orElse(cfg.MaxPeers, 80)
	c.TorrentPeersLowWater = c.EstablishedConnsPerTorrent

	c.MaxUnverifiedBytes = orElse(cfg.Unverified, 64<<20)
	c.MaxAllocPeerRequestDataPerConn = uploadQueue
	if up := cfg.Gate.UpRate(); up > 0 {
		// The gate's limit is what counts; this keeps what waits for it out of the
		// buffers of the connections, in which requests would wait behind it.
		c.UploadRateLimiter = rate.NewLimiter(rate.Limit(up*0.95), 128<<10)
	}
	c.Bep20 = "-DC0001-"
	c.ExtendedHandshakeClientVersion = clientName(cfg.Version)
	if cfg.Origin {
		c.ExtendedHandshakeClientVersion += originClient
	}
	c.HTTPUserAgent = clientName(cfg.Version)
	c.Slogger = slog.New(quiet{cfg.Log.Handler()})
	return c
}

// uploadQueue is how much a peer's outstanding requests may hold in RAM, in
// bytes; below what peers ask ahead, uploads stall.
const uploadQueue = 4 << 20

func clientName(version string) string {
	if version == "" {
		return "dcfs"
	}
	return "dcfs/" + version
}

func orElse[T int | int64](v, other T) T {
	if v > 0 {
		return v
	}
	return other
}

// Port returns the port that the node listens on.
func (n *Node) Port() int { return n.client.LocalPort() }

// Addr returns the first address that the node listens on, as HOST:PORT.
func (n *Node) Addr() string {
	for _, a := range n.client.ListenAddrs() {
		return a.String()
	}
	return ""
}

// Close leaves every swarm and closes the port. Leave the swarms first: Close
// says no goodbye to trackers.
func (n *Node) Close() error {
	n.close()
	err := errors.Join(n.client.Close()...)
	if n.lis != nil {
		err = errors.Join(err, n.lis.Close()) // in this order: the library asks for more until it is closed
	}
	n.tasks.Wait() // their requests end with n.open
	return err
}
