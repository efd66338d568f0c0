package metainfo

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

const maxMagnet = 64 << 10 // bytes of a magnet link

// Magnet is what a magnet link says of a release (BEP 9): enough to find peers,
// and to judge the info dictionary that they send before it is believed.
type Magnet struct {
	InfoHash  [20]byte
	Name      string   // "" if the link does not say
	Trackers  []string // "tr"
	Peers     []string // "x.pe": HOST:PORT
	Statement []byte   // "x.dcfs": both or none
	Signature []byte
}

// Magnet returns the link to m. Peers can be added to it.
func (m *Metainfo) Magnet() Magnet {
	return Magnet{InfoHash: m.InfoHash, Name: m.Name, Trackers: m.Trackers, Statement: m.Statement, Signature: m.Signature}
}

// String returns the link as a URI.
func (m Magnet) String() string {
	var b strings.Builder
	b.WriteString("magnet:?xt=urn:btih:" + hex.EncodeToString(m.InfoHash[:]))
	add := func(key string, values ...string) {
		for _, v := range values {
			b.WriteString("&" + key + "=" + url.QueryEscape(v))
		}
	}
	if m.Name != "" {
		add("dn", m.Name)
	}
	add("tr", m.Trackers...)
	add("x.pe", m.Peers...)
	if len(m.Statement) > 0 && len(m.Signature) > 0 {
		e := base64.RawURLEncoding
		add("x.dcfs", e.EncodeToString(m.Statement)+"."+e.EncodeToString(m.Signature))
	}
	return b.String()
}

// ParseMagnet reads a magnet link that may come from anybody. Parameters that
// it does not know are ignored. Errors wrap ErrInvalid.
func ParseMagnet(s string) (Magnet, error) {
	m, err := parseMagnet(s)
	if err != nil {
		return Magnet{}, fmt.Errorf("%w: the magnet link: %w", ErrInvalid, err)
	}
	return m, nil
}

func parseMagnet(s string) (m Magnet, err error) {
	if len(s) > maxMagnet {
		return m, fmt.Errorf("%d bytes; %d are the limit", len(s), maxMagnet)
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "magnet" {
		return m, errors.New("it does not read magnet:?xt=urn:btih:…")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return m, err
	}
	for _, key := range []string{"xt", "dn", "x.dcfs"} {
		if len(q[key]) > 1 {
			return m, fmt.Errorf("it has %d parameters %s", len(q[key]), key)
		}
	}
	if m.InfoHash, err = parseTopic(q.Get("xt")); err != nil {
		return m, err
	}
	if m.Name = q.Get("dn"); m.Name != "" {
		if err := ValidName(m.Name); err != nil {
			return m, err
		}
	}
	m.Trackers, m.Peers = q["tr"], q["x.pe"]
	if err := m.checkAddresses(); err != nil {
		return m, err
	}
	if s := q.Get("x.dcfs"); s != "" {
		m.Statement, m.Signature, err = parseSigned(s)
	}
	return m, err
}

// parseTopic reads an info-hash in hex or base32, as BEP 9 allows.
func parseTopic(s string) (hash [20]byte, err error) {
	topic, ok := strings.CutPrefix(s, "urn:btih:")
	if !ok {
		return hash, errors.New("there is no info-hash xt=urn:btih:… in it")
	}
	var b []byte
	switch len(topic) {
	case 40:
		b, err = hex.DecodeString(topic)
	case 32:
		b, err = base32.StdEncoding.DecodeString(strings.ToUpper(topic))
	default:
		err = fmt.Errorf("%d letters", len(topic))
	}
	if err != nil {
		return hash, fmt.Errorf("the info-hash %.50q: %w", topic, err)
	}
	return [20]byte(b), nil
}

func (m *Magnet) checkAddresses() error {
	if len(m.Trackers) > maxURLs || len(m.Peers) > maxURLs {
		return fmt.Errorf("%d trackers and %d peers; %d are the limit", len(m.Trackers), len(m.Peers), maxURLs)
	}
	for _, s := range m.Trackers {
		if err := checkURL(s); err != nil {
			return err
		}
	}
	for _, s := range m.Peers {
		host, port, err := net.SplitHostPort(s)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" {
			return fmt.Errorf("the peer %.100q is not HOST:PORT", s)
		}
	}
	return nil
}

func parseSigned(s string) (statement, signature []byte, err error) {
	e := base64.RawURLEncoding.Strict()
	first, second, ok := strings.Cut(s, ".")
	if ok {
		statement, err = e.DecodeString(first)
	}
	if ok && err == nil {
		signature, err = e.DecodeString(second)
	}
	if !ok || err != nil || len(statement) == 0 || len(signature) == 0 {
		return nil, nil, errors.New("x.dcfs is not two base64url texts with a dot between: copy the whole link")
	}
	return statement, signature, checkSigned(statement, signature)
}
