package release

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"time"

	"dcfs/swarm/metainfo"
)

// Seal signs a release and returns its metainfo with statement and signature
// in it. The statement is made for m.Name. Times count in whole seconds;
// expires may be zero for never, and is else after created. Equal arguments
// give equal bytes. m is not changed.
func Seal(m *metainfo.Metainfo, key *Secret, created, expires time.Time) ([]byte, error) {
	if sha1.Sum(m.Info) != m.InfoHash || sha256.Sum256(m.Info) != m.InfoSHA256 {
		return nil, fmt.Errorf("sealing %s: its info dictionary was changed after it was made", m.Name)
	}
	statement, err := statement{
		Name: m.Name, InfoHash: m.InfoHash, InfoSHA256: m.InfoSHA256, Created: created, Expires: expires,
	}.encode()
	if err != nil {
		return nil, fmt.Errorf("sealing %s: %w", m.Name, err)
	}
	// What Open would refuse must not be signed.
	if _, err := decodeStatement(statement); err != nil {
		return nil, fmt.Errorf("sealing %s: %w", m.Name, err)
	}
	signature, err := key.sign(statement, "dcfs release "+m.Name)
	if err != nil {
		return nil, fmt.Errorf("sealing %s: %w", m.Name, err)
	}
	sealed := *m
	sealed.Statement, sealed.Signature = statement, signature
	out := sealed.Encode()
	if len(out) > metainfo.MaxSize {
		return nil, fmt.Errorf("sealing %s: the metainfo has %d bytes; %d are the limit: publish the directory in parts",
			m.Name, len(out), metainfo.MaxSize)
	}
	return out, nil
}
