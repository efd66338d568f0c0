// Package gate makes the connections between hosts. It decides who may connect:
// hosts of an allow-list of networks, and hosts with a certificate of the
// fleet, where those are configured; and how fast, counted as on the link.
//
// It must never hand out a connection, or send a byte of its user's over one,
// before the other side has proved what the Gate asks for; and it must never
// know what is said over a connection. What is not configured is not asked for:
// the zero Gate lets everybody in.
package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// ErrOutside is wrapped when an address is in none of the allowed networks.
var ErrOutside = errors.New("it is in none of the allowed networks (--peer-allow)")

// handshakeTime bounds a TLS handshake.
const handshakeTime = 5 * time.Second

// Gate decides who may connect to this host, and to whom it connects. Its
// fields must not be changed after the first use; it is safe for concurrent
// use, and must not be copied then.
type Gate struct {
	Identity *Identity // nil for no TLS
	Allow    Networks  // empty for all
	Rates    Rates
	Log      *slog.Logger

	outside, unproven atomic.Int64
	complaints        complaints
}

// Open reports whether the gate changes nothing: it lets everybody in, as fast as
// they are.
func (g *Gate) Open() bool {
	return g == nil || g.Identity == nil && len(g.Allow) == 0 && !limited(g.Rates.Up) && !limited(g.Rates.Down)
}

// UpRate returns the lowest limit on what is sent, in bytes a second; 0 for none.
func (g *Gate) UpRate() (lowest float64) {
	if g == nil {
		return 0
	}
	for _, l := range g.Rates.Up {
		if l != nil && (lowest == 0 || l.rate < lowest) {
			lowest = l.rate
		}
	}
	return lowest
}

// Refused returns how many connections were refused because of where they came
// from, and how many because they did not prove who they are.
func (g *Gate) Refused() (outside, unproven int64) {
	if g == nil {
		return 0, 0
	}
	return g.outside.Load(), g.unproven.Load()
}

// Dial connects to a peer at HOST:PORT. A peer needs a certificate of the
// fleet, and any name in it will do: peers know each other by addresses.
func (g *Gate) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return g.dial(ctx, addr, "")
}

// dial connects to addr. The certificate must be for name, unless that is
// empty.
func (g *Gate) dial(ctx context.Context, addr, name string) (net.Conn, error) {
	if at, err := netip.ParseAddrPort(addr); err == nil && !g.Allow.Has(at.Addr()) {
		return nil, fmt.Errorf("%s: %w", addr, ErrOutside)
	}
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if !g.Allow.has(raw.RemoteAddr()) { // a name led there
		raw.Close()
		return nil, fmt.Errorf("%s: %w", raw.RemoteAddr(), ErrOutside)
	}
	abandon(raw)
	raw = g.Rates.Pace(raw)
	if g.Identity == nil {
		return raw, nil
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	c, err := secureClient(ctx, raw, g.Identity.client(name))
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS with %s: %w", addr, err)
	}
	return c, nil
}

// dialer leaves keep-alives to the protocol above.
var dialer = net.Dialer{KeepAlive: -1, FallbackDelay: -1}

// abandon has a connection leave nothing behind in the kernel when it is
// closed: there are many, and the protocol above says goodbye itself.
func abandon(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a connection that takes no option is closed already
	}
}

// complaints keeps log lines about strangers few: one in ten seconds, with how
// many there were in between.
type complaints struct {
	mu   sync.Mutex
	last time.Time
	more int
}

const complainEvery = 10 * time.Second

// refuse counts and logs a connection that was refused.
func (g *Gate) refuse(count *atomic.Int64, who net.Addr, why error) {
	count.Add(1)
	if g.Log == nil {
		return
	}
	c := &g.complaints
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.last) < complainEvery {
		c.more++
		return
	}
	g.Log.Warn("refused a connection", "from", who, "cause", why, "more", c.more)
	c.last, c.more = time.Now(), 0
}
