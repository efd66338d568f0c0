// Package utp stands in for the uTP transport of the torrent library. dcfs speaks
// TCP only (docs/architecture.md), so nothing here is ever called: it keeps a transport
// over UDP, in C or not, out of the build.
package utp

import (
	"context"
	"errors"
	"log/slog"
	"net"
)

// Default names this implementation.
const Default = "none"

// FirewallCallback is accepted and ignored.
type FirewallCallback func(net.Addr) bool

var errNone = errors.New("built without uTP")

// Socket is what the library expects of a uTP socket.
type Socket interface {
	net.PacketConn
	Accept() (net.Conn, error)
	Addr() net.Addr
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	SetFirewallCallback(FirewallCallback)
}

// Option is accepted and ignored.
type Option struct{}

// WithLogger returns an Option.
func WithLogger(*slog.Logger) Option { return Option{} }

// NewSocket fails.
func NewSocket(_, _ string, _ ...Option) (Socket, error) { return nil, errNone }

// NewSocketFromPacketConn fails.
func NewSocketFromPacketConn(net.PacketConn, ...Option) (Socket, error) { return nil, errNone }
