package gate

import (
	"context"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// goneAfter is after how long a connection ends whose other side cannot be reached
// any more, whether something is on its way to it or nothing.
const goneAfter = 30 * time.Second

// alive asks the other side of a connection on which nothing is on its way.
var alive = net.KeepAliveConfig{Enable: true, Idle: goneAfter / 3, Interval: goneAfter / 6, Count: 4}

// Dialer dials for HTTP. A connection whose other side is cut off ends within half a
// minute, and not when the kernel gives up, which takes a quarter of an hour.
func Dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: timeout, KeepAliveConfig: alive, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(goneAfter.Milliseconds())) // it works without, only later
		})
	}}
}

// Secure has an HTTP client's transport prove with the identity who this host
// is, and take only servers whose certificate comes from the fleet's CAs and is
// for the host of the URL. It goes through no proxy then. A nil identity changes
// nothing.
func (i *Identity) Secure(t *http.Transport) *http.Transport {
	if i == nil {
		return t
	}
	t.Proxy = nil // it would come between, and TLS with it is another
	dial := t.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, handshakeTime)
		defer cancel()
		c, err := secureClient(ctx, raw, i.client(host))
		if err != nil {
			raw.Close()
			return nil, err
		}
		return c, nil
	}
	return t
}
