package gate

import (
	"context"
	"net"
	"net/http"
)

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
