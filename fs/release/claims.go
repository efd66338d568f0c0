package release

import (
	"time"

	"github.com/jedisct1/go-minisign"

	"dcfs/swarm/metainfo"
)

// Claims is what metainfo says of its own signature. Nothing of it was
// checked: it is for showing, never for deciding.
type Claims struct {
	KeyID   string // as minisign prints it
	Created time.Time
	Expires time.Time // zero for never
}

// ReadClaims returns what m claims, and false when it has no signature that
// could be read.
func ReadClaims(m *metainfo.Metainfo) (Claims, bool) {
	st, err := decodeStatement(m.Statement)
	if err != nil || len(m.Signature) > maxSignature {
		return Claims{}, false
	}
	sig, err := minisign.DecodeSignature(string(m.Signature))
	if err != nil {
		return Claims{}, false
	}
	return Claims{KeyID: formatKeyID(sig.KeyId), Created: st.Created, Expires: st.Expires}, true
}
