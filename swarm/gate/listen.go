package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// TLS handshakes under way, in all and with one address; what comes beyond is
	// closed.
	maxHandshakes    = 2048
	maxHandshakesOne = 256
	// acceptPause is after an error that is not the end, such as too many open
	// files.
	acceptPause = 50 * time.Millisecond
)

// Listener accepts connections that the gate lets in. A stranger does not keep
// others waiting.
type Listener struct {
	net.Listener
	gate *Gate
	// prove has the other side prove who it is.
	prove   func(context.Context, net.Conn) (net.Conn, error)
	prepare func(net.Conn) // sets what the protocol above wants of a connection
	ready   chan net.Conn
	done    chan struct{}
	stop    context.CancelFunc
	open    context.Context
	tasks   sync.WaitGroup

	mu    sync.Mutex
	under map[netip.Addr]int // handshakes by address
	all   int
}

// Listen listens on HOST:PORT for peers. Close the listener to end it; that
// closes also what nobody has accepted yet.
func (g *Gate) Listen(addr string) (*Listener, error) {
	return g.listen(addr, net.ListenConfig{KeepAlive: -1}, func(ctx context.Context, raw net.Conn) (net.Conn, error) {
		return secureServer(ctx, raw, g.Identity.server())
	}, abandon)
}

// ListenHTTP listens on HOST:PORT for an http.Server, which learns from the
// connections whether they are TLS. One whose client is cut off ends within half a
// minute.
func (g *Gate) ListenHTTP(addr string) (net.Listener, error) {
	config := net.ListenConfig{KeepAliveConfig: alive}
	if g.Open() {
		return config.Listen(context.Background(), "tcp", addr)
	}
	return g.listen(addr, config, func(ctx context.Context, raw net.Conn) (net.Conn, error) {
		t := tls.Server(raw, g.Identity.server())
		return t, t.HandshakeContext(ctx)
	}, func(net.Conn) {})
}

func (g *Gate) listen(addr string, config net.ListenConfig, prove func(context.Context, net.Conn) (net.Conn, error), prepare func(net.Conn)) (*Listener, error) {
	raw, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	l := &Listener{Listener: raw, gate: g, prove: prove, prepare: prepare, ready: make(chan net.Conn), done: make(chan struct{}), under: make(map[netip.Addr]int)}
	l.open, l.stop = context.WithCancel(context.Background())
	l.tasks.Go(l.run)
	return l, nil
}

// Accept waits for a connection that was let in. After Close the error is
// net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends the listener and waits for its goroutines.
func (l *Listener) Close() error {
	l.stop()
	err := l.Listener.Close()
	l.tasks.Wait()
	return err
}

func (l *Listener) run() {
	defer close(l.done)
	for {
		raw, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-l.open.Done():
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		l.judge(raw)
	}
}

// judge lets a connection in, or not. It waits for no stranger.
func (l *Listener) judge(raw net.Conn) {
	g := l.gate
	if !g.Allow.has(raw.RemoteAddr()) {
		g.refuse(&g.outside, raw.RemoteAddr(), ErrOutside)
		raw.Close()
		return
	}
	l.prepare(raw)
	raw = g.Rates.Pace(raw)
	if g.Identity == nil {
		l.admit(raw)
		return
	}
	from, free := l.begin(raw)
	if !free {
		g.refuse(&g.unproven, raw.RemoteAddr(), errors.New("too many TLS handshakes are under way"))
		raw.Close()
		return
	}
	l.tasks.Go(func() {
		defer l.finish(from)
		ctx, cancel := context.WithTimeout(l.open, handshakeTime)
		defer cancel()
		c, err := l.prove(ctx, raw)
		if err != nil {
			raw.Close()
			if l.open.Err() == nil {
				g.refuse(&g.unproven, raw.RemoteAddr(), err)
			}
			return
		}
		l.admit(c)
	})
}

// admit hands a connection out.
func (l *Listener) admit(c net.Conn) {
	select {
	case l.ready <- c:
	case <-l.open.Done():
		c.Close()
	}
}

// begin counts a handshake, if there is room for one more.
func (l *Listener) begin(raw net.Conn) (from netip.Addr, free bool) {
	if at, err := netip.ParseAddrPort(raw.RemoteAddr().String()); err == nil {
		from = at.Addr().Unmap()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxHandshakes || l.under[from] >= maxHandshakesOne {
		return from, false
	}
	l.all++
	l.under[from]++
	return from, true
}

func (l *Listener) finish(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.under[from]--; l.under[from] == 0 {
		delete(l.under, from)
	}
}
