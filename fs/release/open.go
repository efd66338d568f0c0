package release

import (
	"fmt"
	"path"
	"time"

	"dcfs/swarm/metainfo"
)

// maxAhead is how far in the future a release may have been created: clocks
// differ that much, but an attacker must not prepare what comes later.
const maxAhead = 5 * time.Minute

// OpenOptions says what a release is held against.
type OpenOptions struct {
	Trust         Trust
	Want          string    // the name that was asked for; "" takes any
	Now           time.Time // for Created and Expires; zero is the present
	AllowUnsigned bool      // take a release without a signature; a wrong one is refused all the same
}

// Open reads the metainfo of a release that may come from anybody and checks
// it. Errors wrap ErrUntrusted, or metainfo.ErrInvalid when it cannot be read.
// The release shares memory with raw.
func Open(raw []byte, opt OpenOptions) (*Release, error) {
	m, err := metainfo.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("opening the release: %w", err)
	}
	return open(m, raw, opt)
}

// OpenParsed is Open for metainfo that was parsed already.
func OpenParsed(m *metainfo.Metainfo, opt OpenOptions) (*Release, error) {
	return open(m, m.Encode(), opt)
}

// OpenMagnet is Open for an info dictionary that peers sent (BEP 9), with the
// statement and signature of the magnet link.
func OpenMagnet(link metainfo.Magnet, info []byte, opt OpenOptions) (*Release, error) {
	m, err := metainfo.ParseInfo(info)
	if err != nil {
		return nil, fmt.Errorf("opening the release: %w", err)
	}
	if m.InfoHash != link.InfoHash {
		return nil, fmt.Errorf("%w: the metadata has the infohash %x and the magnet link asks for %x: another peer may have the right one",
			ErrUntrusted, m.InfoHash, link.InfoHash)
	}
	name := link.Name
	if name == "" {
		// Without a name in the link that of the statement counts; open
		// checks it like any other.
		if s, err := decodeStatement(link.Statement); err == nil {
			name = s.Name
		}
	}
	if name != "" {
		if path.Base(name) != m.Name {
			return nil, fmt.Errorf("%w: the magnet link names it %s, and its metadata %s: ask the publisher for the right link",
				ErrUntrusted, name, m.Name)
		}
		m.Name = name
	}
	m.Trackers, m.Statement, m.Signature = link.Trackers, link.Statement, link.Signature
	return OpenParsed(m, opt)
}

func open(m *metainfo.Metainfo, raw []byte, opt OpenOptions) (*Release, error) {
	r := &Release{
		Name: m.Name, InfoHash: m.InfoHash, Info: m.Info, Metainfo: raw, Tree: m.Tree, Layout: m.Layout,
		Trackers: m.Trackers, WebSeeds: m.WebSeeds, pieces: m.Pieces,
	}
	if err := r.prove(m, opt); err != nil {
		return nil, fmt.Errorf("release %s: %w", m.Name, err)
	}
	if opt.Want != "" && opt.Want != r.Name {
		return nil, fmt.Errorf("%w: asked for the release %s and got %s: the source mixes them up, use another", ErrUntrusted, opt.Want, r.Name)
	}
	return r, nil
}

// prove checks the signature and what was signed, and fills in what only a
// signed release has.
func (r *Release) prove(m *metainfo.Metainfo, opt OpenOptions) error {
	if len(m.Statement) == 0 && len(m.Signature) == 0 {
		if opt.AllowUnsigned {
			return nil
		}
		return fmt.Errorf("%w: it has no signature: have it published with --key, or accept it with --insecure-unsigned", ErrUntrusted)
	}
	// Nothing of the statement is looked at before its signature is checked.
	id, err := opt.Trust.verify(m.Statement, m.Signature)
	if err != nil {
		return err
	}
	s, err := decodeStatement(m.Statement)
	if err != nil {
		return fmt.Errorf("%w: signed by the key %s, but %w", ErrUntrusted, id, err)
	}
	if err := s.covers(m); err != nil {
		return err
	}
	if err := s.validAt(opt.Now); err != nil {
		return err
	}
	r.Signed, r.KeyID, r.Created, r.Expires = true, id, s.Created, s.Expires
	return nil
}

// covers checks that the statement is about m.
func (s statement) covers(m *metainfo.Metainfo) error {
	switch {
	case s.InfoHash != m.InfoHash || s.InfoSHA256 != m.InfoSHA256:
		return fmt.Errorf("%w: it was tampered with: the signature is good, but for other content; fetch it again from the publisher", ErrUntrusted)
	case s.Name != m.Name:
		return fmt.Errorf("%w: it was signed as the release %s and comes as %s: ask for %s, or use another source",
			ErrUntrusted, s.Name, m.Name, s.Name)
	}
	return nil
}

func (s statement) validAt(now time.Time) error {
	if now.IsZero() {
		now = time.Now()
	}
	switch {
	case s.Created.After(now.Add(maxAhead)):
		return fmt.Errorf("%w: it is not valid yet: signed for %s, and it is %s here: check this host's clock",
			ErrUntrusted, s.Created.Format(timeLayout), now.UTC().Format(timeLayout))
	case !s.Expires.IsZero() && !now.Before(s.Expires):
		return fmt.Errorf("%w: it expired at %s: use a newer release, or have it published again",
			ErrUntrusted, s.Expires.Format(timeLayout))
	}
	return nil
}
