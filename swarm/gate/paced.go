package gate

import (
	"net"
	"sync"
	"time"
)

// Rates are what connections share; each may have nils in it.
type Rates struct {
	Up, Down []*Limit // all of them hold
}

// Busy reports whether bytes wait at this moment for a limit on what is
// received.
func (r Rates) Busy() bool {
	for _, l := range r.Down {
		if l.Busy() {
			return true
		}
	}
	return false
}

func limited(all []*Limit) bool {
	for _, l := range all {
		if l != nil {
			return true
		}
	}
	return false
}

// take takes bytes of all limits, and returns for how long to wait.
func take(all []*Limit, bytes int) (wait time.Duration) {
	for _, l := range all {
		wait = max(wait, l.reserve(bytes))
	}
	return wait
}

func quantum(all []*Limit) int {
	q := maxQuantum
	for _, l := range all {
		q = min(q, l.quantum())
	}
	return q
}

// Pace has a connection heed the rates.
func (r Rates) Pace(c net.Conn) net.Conn {
	if !limited(r.Up) && !limited(r.Down) {
		return c
	}
	if tcp, ok := c.(*net.TCPConn); ok && limited(r.Down) {
		// What the kernel takes from the link before we read is beyond the limit. The
		// protocol above asks for little ahead; this is for those who do not.
		_ = tcp.SetReadBuffer(kernelBuffer(quantum(r.Down)))
	}
	return &paced{Conn: c, rates: r, closed: make(chan struct{})}
}

// kernelBuffer is a tenth of a second of a limit, within bounds.
func kernelBuffer(quantum int) int { return max(20*quantum, 128<<10) }

// paced is a connection that heeds rates.
type paced struct {
	net.Conn
	rates  Rates
	once   sync.Once
	closed chan struct{}
}

// Read implements net.Conn.
func (p *paced) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b[:min(len(b), quantum(p.rates.Down))])
	if n > 0 {
		take(p.rates.Up, acks(n)) // they go without asking
		p.sleep(take(p.rates.Down, onLink(n)))
	}
	return n, err
}

// Write implements net.Conn.
func (p *paced) Write(b []byte) (sent int, err error) {
	for most := quantum(p.rates.Up); err == nil && sent < len(b); {
		part := b[sent:min(len(b), sent+most)]
		take(p.rates.Down, acks(len(part)))
		p.sleep(take(p.rates.Up, onLink(len(part))))
		n, e := p.Conn.Write(part)
		sent, err = sent+n, e
	}
	return sent, err
}

// Close implements net.Conn. It ends waits for the rates.
func (p *paced) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Conn.Close()
}

// CloseWrite lets an HTTP server end an answer before it closes.
func (p *paced) CloseWrite() error {
	if tcp, ok := p.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}

func (p *paced) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.closed:
	}
}
