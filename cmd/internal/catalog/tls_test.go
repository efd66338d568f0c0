package catalog

import (
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"dcfs/swarm/gate"
	"dcfs/swarm/gate/gatetest"
)

// TestOriginsWithTLS: what an origin behind TLS says to whom, and what to try.
func TestOriginsWithTLS(t *testing.T) {
	ca := gatetest.NewCA(t, "fleet")
	id := func(ca *gatetest.CA) *gate.Identity {
		i, err := gate.LoadIdentity(ca.Dir(gatetest.Leaf{Names: []string{"127.0.0.1"}}), false, nil)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	own := id(ca)
	lis, err := (&gate.Gate{Identity: own}).ListenHTTP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o, plain := newOrigin(t, map[string]string{"web": torrentA})
	server := &http.Server{Handler: o}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(lis) })
	t.Cleanup(func() { server.Close(); serving.Wait() })
	at := lis.Addr().String()
	for _, tc := range []struct {
		url      string
		identity *gate.Identity
		want     error
		say      string
	}{
		{"https://" + at, own, nil, ""},
		{"https://" + at, nil, ErrBadAnswer, "--peer-tls"},
		{"https://" + at, id(gatetest.NewCA(t, "other")), ErrBadAnswer, "--peer-tls"},
		{"http://" + at, nil, ErrUnreachable, "wants https://"},
		{"http://" + at, own, ErrUsage, "write https://" + at},
		{"https://localhost:" + strings.TrimPrefix(at, "127.0.0.1:"), own, ErrBadAnswer, "the host of the URL"},
		{strings.Replace(plain, "http:", "https:", 1), own, ErrBadAnswer, "write http://"},
		{strings.Replace(plain, "http:", "https:", 1), nil, ErrBadAnswer, "write http://"},
	} {
		c := clientFor(t, tc.url)
		c.HTTP, c.Identity = nil, tc.identity
		body, err := c.Metainfo(t.Context(), "web")
		if tc.want == nil && (err != nil || string(body) != torrentA) {
			t.Errorf("%s: %v", tc.url, err)
		}
		if tc.want != nil && (!errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.say)) {
			t.Errorf("%s: want %v and %q: %v", tc.url, tc.want, tc.say, err)
		}
	}
	// Whoever believes it without a certificate of its own is refused by it.
	knows := clientFor(t, "https://"+at)
	knows.HTTP = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	if _, err := knows.Metainfo(t.Context(), "web"); !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "--peer-tls") {
		t.Errorf("without a certificate: %v", err)
	}
}
