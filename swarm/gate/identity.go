package gate

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrIdentity is wrapped when the files of an identity cannot be used.
var ErrIdentity = errors.New("bad TLS files")

// The names of the files, in the order in which they are looked for; the second
// ones are what Kubernetes writes.
var (
	caNames   = []string{"ca.pem", "ca.crt"}
	certNames = []string{"cert.pem", "tls.crt"}
	keyNames  = []string{"key.pem", "tls.key"}
)

const (
	maxPEM = 1 << 20 // bytes of one file
	// lookEvery is how often, at most, the files are looked at for a change.
	lookEvery = time.Second
	// nagEvery is how often, at most, is said that the certificate has expired.
	nagEvery = time.Minute
)

// Identity is what proves to others that this host is of the fleet: its
// certificate with its key, and the CAs that others' certificates have to come
// from. It looks at its files before each handshake, at most once a second, and
// takes new ones as soon as they fit each other; until then it keeps the old
// ones. It is safe for concurrent use.
type Identity struct {
	dir string
	log *slog.Logger

	mu     sync.Mutex
	now    *credentials
	looked time.Time
	tried  string // the stamp of the files that were tried last
	nagged time.Time
}

// credentials are what the files said at one time.
type credentials struct {
	cert  tls.Certificate
	pool  *x509.CertPool
	stamp string
}

// LoadIdentity reads the CAs, the certificate and its key from a directory:
// ca.pem, cert.pem and key.pem, or ca.crt, tls.crt and tls.key. Errors wrap
// ErrIdentity, name the file and say what is wrong with it. One whose time is
// over, or has not come, is refused unless resumed: what runs goes on.
func LoadIdentity(dir string, resumed bool, log *slog.Logger) (*Identity, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c, err := load(dir, time.Now())
	if late := new(outOfTime); resumed && errors.As(err, late) {
		log.Error("TLS: other hosts refuse this one until its certificate is renewed", "cause", err)
		c, err = load(dir, late.within)
	}
	if err != nil {
		return nil, err
	}
	return &Identity{dir: dir, log: log, now: c, looked: time.Now(), tried: c.stamp}, nil
}

// Validity returns from when to when the certificate that is used is valid.
func (i *Identity) Validity() (from, to time.Time) {
	leaf := i.current().cert.Leaf
	return leaf.NotBefore, leaf.NotAfter
}

// Subject returns whom the certificate names, for people.
func (i *Identity) Subject() string { return i.current().cert.Leaf.Subject.String() }

// current returns the credentials to use now.
func (i *Identity) current() *credentials {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	if now.Sub(i.looked) >= lookEvery {
		i.looked = now
		i.look(now)
	}
	if leaf := i.now.cert.Leaf; now.After(leaf.NotAfter) && now.Sub(i.nagged) >= nagEvery {
		i.nagged = now
		i.log.Error("TLS: other hosts refuse this one: its certificate has expired; renew it", "dir", i.dir, "expired", leaf.NotAfter)
	}
	return i.now
}

// look takes changed files if they can be used. i.mu is held.
func (i *Identity) look(now time.Time) {
	stamp, err := stampOf(i.dir)
	if err != nil {
		stamp = err.Error()
	}
	if stamp == i.now.stamp || stamp == i.tried {
		return
	}
	c, err := load(i.dir, now)
	if err != nil {
		// Files that are written one after the other do not fit for a moment: it is
		// worth a line only when they are still the same at the next look.
		if unsettled := stamp + "?"; i.tried != unsettled {
			i.tried = unsettled
			return
		}
		i.tried = stamp
		i.log.Warn("TLS: the new files are not used; going on with the old ones", "dir", i.dir, "cause", err)
		return
	}
	i.now, i.tried = c, c.stamp
	i.log.Info("TLS: new files are used from now on", "dir", i.dir, "expires", c.cert.Leaf.NotAfter)
}

// outOfTime says that files could be used at another time.
type outOfTime struct {
	error
	within time.Time
}

func (o outOfTime) Unwrap() error { return o.error }

func load(dir string, now time.Time) (*credentials, error) {
	stamp, err := stampOf(dir) // before: what changes meanwhile is looked at again
	if err != nil {
		return nil, err
	}
	ca, caPath, err := readPEM(dir, caNames)
	if err != nil {
		return nil, err
	}
	cert, certPath, err := readPEM(dir, certNames)
	if err != nil {
		return nil, err
	}
	key, keyPath, err := readPEM(dir, keyNames)
	if err != nil {
		return nil, err
	}
	c := &credentials{stamp: stamp, pool: x509.NewCertPool()}
	if err := addAll(c.pool, ca); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrIdentity, caPath, err)
	}
	if err := addAll(x509.NewCertPool(), cert); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrIdentity, certPath, err)
	}
	if c.cert, err = tls.X509KeyPair(cert, key); err != nil {
		return nil, fmt.Errorf("%w: %s and %s: %s", ErrIdentity, certPath, keyPath, strings.TrimPrefix(err.Error(), "tls: "))
	}
	if err := c.fits(now, certPath, caPath); err != nil {
		return nil, err
	}
	return c, nil
}

// fits reports what others would find wrong with the certificate.
func (c *credentials) fits(now time.Time, certPath, caPath string) error {
	leaf := c.cert.Leaf
	switch {
	case now.After(leaf.NotAfter):
		return outOfTime{fmt.Errorf("%w: %s expired on %s: renew it", ErrIdentity, certPath, leaf.NotAfter.Format(time.RFC3339)), leaf.NotAfter}
	case now.Before(leaf.NotBefore):
		return outOfTime{fmt.Errorf("%w: %s is valid from %s on, which is in the future: is this host's clock right?",
			ErrIdentity, certPath, leaf.NotBefore.Format(time.RFC3339)), leaf.NotBefore}
	}
	var chain []*x509.Certificate
	for _, der := range c.cert.Certificate[1:] {
		if x, err := x509.ParseCertificate(der); err == nil {
			chain = append(chain, x)
		}
	}
	if err := c.verify(leaf, chain, now, x509.ExtKeyUsageAny); err != nil {
		return fmt.Errorf("%w: %s does not come from %s: %w", ErrIdentity, certPath, caPath, err)
	}
	// Each host is a client here and a server there.
	for use, name := range map[x509.ExtKeyUsage]string{x509.ExtKeyUsageClientAuth: "clientAuth", x509.ExtKeyUsageServerAuth: "serverAuth"} {
		if err := c.verify(leaf, chain, now, use); err != nil {
			return fmt.Errorf("%w: %s may not be used for %s: %w: its extendedKeyUsage has to be serverAuth,clientAuth", ErrIdentity, certPath, name, err)
		}
	}
	return nil
}

// verify checks a certificate against the CAs, with the other certificates that
// came with it.
func (c *credentials) verify(leaf *x509.Certificate, chain []*x509.Certificate, now time.Time, use x509.ExtKeyUsage) error {
	opt := x509.VerifyOptions{Roots: c.pool, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}}
	for _, x := range chain {
		opt.Intermediates.AddCert(x)
	}
	_, err := leaf.Verify(opt)
	return err
}

// addAll adds the certificates of a PEM file to a pool: all of them, and at
// least one.
func addAll(pool *x509.CertPool, text []byte) error {
	n := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		x, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("a certificate in it cannot be read: %w", err)
		}
		pool.AddCert(x)
		n++
	}
	if n == 0 {
		return errors.New("there is no certificate in it: want PEM, which starts with -----BEGIN CERTIFICATE-----")
	}
	return nil
}

// find returns the first of the names that is in the directory.
func find(dir string, names []string) (string, os.FileInfo, error) {
	for _, name := range names {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err == nil && !info.Mode().IsRegular() {
			return "", nil, fmt.Errorf("%w: %s is no regular file", ErrIdentity, path)
		}
		if err == nil {
			return path, info, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", nil, fmt.Errorf("%w: %w", ErrIdentity, err)
		}
	}
	return "", nil, fmt.Errorf("%w: %s has neither %s nor %s: --peer-tls names a directory with ca.pem, cert.pem and key.pem",
		ErrIdentity, dir, names[0], names[1])
}

// stampOf tells one state of the files from another.
func stampOf(dir string) (string, error) {
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("%w: %w: --peer-tls names a directory with ca.pem, cert.pem and key.pem", ErrIdentity, err)
	}
	var s strings.Builder
	for _, names := range [][]string{caNames, certNames, keyNames} {
		path, info, err := find(dir, names)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&s, "%s %d %d %v;", path, info.Size(), info.ModTime().UnixNano(), inode(info))
	}
	return s.String(), nil
}

func inode(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

func readPEM(dir string, names []string) ([]byte, string, error) {
	path, _, err := find(dir, names)
	if err != nil {
		return nil, "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(text) > maxPEM {
		err = fmt.Errorf("%s has more than %d bytes", path, maxPEM)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return text, path, nil
}
