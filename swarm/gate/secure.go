package gate

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"time"
)

// base is what all our TLS has in common. No session is resumed: whoever
// connects proves anew who it is, against the CAs of now.
func base() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
		// The first megabyte would go in records of one packet each.
		DynamicRecordSizingDisabled: true,
		NextProtos:                  nil,
	}
}

// server is for whom others connect to.
func (i *Identity) server() *tls.Config {
	now, c := i.current(), base()
	c.Certificates, c.ClientCAs, c.ClientAuth = []tls.Certificate{now.cert}, now.pool, tls.RequireAndVerifyClientCert
	return c
}

// client is for who connects. The server's certificate has to be for name; ""
// takes any name, and the certificate has to come from the CAs all the same.
func (i *Identity) client(name string) *tls.Config {
	now, c := i.current(), base()
	c.RootCAs, c.ServerName = now.pool, name
	// The server names the CAs that it wants; ours may have been renamed since.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &now.cert, nil }
	if name == "" {
		c.InsecureSkipVerify = true // only of the name: the rest is done here
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("it has no certificate")
			}
			err := now.verify(s.PeerCertificates[0], s.PeerCertificates[1:], time.Now(), x509.ExtKeyUsageServerAuth)
			if err != nil {
				return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
			}
			return nil
		}
	}
	return c
}

// secureClient is the client's side of TLS over raw, which it owns when there
// is no error.
func secureClient(ctx context.Context, raw net.Conn, c *tls.Config) (net.Conn, error) {
	w := &wire{Conn: raw}
	return secured(ctx, tls.Client(w, c), w)
}

// secureServer is the server's side.
func secureServer(ctx context.Context, raw net.Conn, c *tls.Config) (net.Conn, error) {
	w := &wire{Conn: raw}
	return secured(ctx, tls.Server(w, c), w)
}

func secured(ctx context.Context, t *tls.Conn, w *wire) (net.Conn, error) {
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	w.in = bufio.NewReaderSize(w.Conn, wireBuffer) // strangers get no buffer
	return &secure{Conn: t, wire: w}, nil
}

// secure is a TLS connection that sends all records of a Write at once, and
// whose Close does not wait for the other side.
type secure struct {
	*tls.Conn
	wire *wire
}

// Write implements net.Conn.
func (s *secure) Write(p []byte) (int, error) {
	if len(p) <= oneRecord {
		return s.Conn.Write(p)
	}
	s.wire.cork()
	n, err := s.Conn.Write(p)
	if e := s.wire.uncork(); err == nil {
		err = e
	}
	return n, err
}

// Close ends the connection without a goodbye of TLS: the protocol above knows
// when all is said, and the goodbye could wait seconds for a full buffer.
func (s *secure) Close() error { return s.wire.Close() }

const (
	oneRecord  = 16 << 10 // bytes that go into one record
	wireBuffer = 64 << 10
	corkBuffer = 256 << 10
)

// wire is what TLS reads from and writes to. Package tls makes a system call for
// each record of 16 KiB; here are fewer.
type wire struct {
	net.Conn
	in *bufio.Reader // of the reader alone; nil during the handshake

	mu     sync.Mutex // a reader may have to write an alert
	corked bool
	out    *bytes.Buffer
}

var corks = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, corkBuffer+2*oneRecord)) }}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	if w.in == nil {
		return w.Conn.Read(p)
	}
	return w.in.Read(p)
}

// Write implements net.Conn. What is kept back goes with uncork.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.corked {
		return w.Conn.Write(p)
	}
	w.out.Write(p)
	if w.out.Len() < corkBuffer {
		return len(p), nil
	}
	return len(p), w.flush()
}

func (w *wire) cork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corked = true
	if w.out == nil {
		w.out = corks.Get().(*bytes.Buffer)
	}
}

func (w *wire) uncork() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.flush()
	corks.Put(w.out)
	w.corked, w.out = false, nil
	return err
}

// flush sends what was kept back. w.mu is held.
func (w *wire) flush() error {
	defer w.out.Reset()
	_, err := w.Conn.Write(w.out.Bytes())
	return err
}
