package release

import (
	"fmt"

	"github.com/jedisct1/go-minisign"
)

// maxSignature bounds a signature in its text form, in bytes. Ours have about
// 300; minisign lets a comment be longer than is of any use here.
const maxSignature = 2 << 10

// sign returns a detached minisign signature of data in its text form, of the
// prehashed kind ("ED"), which every minisign since 0.6 verifies. The comment
// is signed too; it must be printable ASCII on one line. The same input gives
// the same signature.
func (s *Secret) sign(data []byte, comment string) ([]byte, error) {
	sig, err := s.key.Sign(data, minisign.SignOptions{
		Hashed:           true,
		UntrustedComment: "signature from dcfs secret key " + s.KeyID(),
		TrustedComment:   comment,
	})
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return sig.Encode(), nil
}

// verify checks a detached minisign signature in its text form, prehashed
// ("ED") or legacy ("Ed"), and returns the ID of the key that made it. Its
// errors wrap ErrUntrusted.
func (t Trust) verify(data, signature []byte) (string, error) {
	if len(signature) > maxSignature {
		return "", fmt.Errorf("%w: the signature has %d bytes; %d are the limit", ErrUntrusted, len(signature), maxSignature)
	}
	sig, err := minisign.DecodeSignature(string(signature))
	if err != nil {
		return "", fmt.Errorf("%w: the signature is no minisign signature: fetch the release again", ErrUntrusted)
	}
	id := formatKeyID(sig.KeyId)
	keys := t.keys[sig.KeyId]
	if len(keys) == 0 {
		return "", fmt.Errorf("%w: it is signed by the key %s, which is not in %s: if you trust that key, put its .pub file there",
			ErrUntrusted, id, t.place())
	}
	// IDs are random numbers that anybody may choose, so two keys can share one.
	for i := range keys {
		if ok, err := keys[i].Verify(data, sig); ok && err == nil {
			return id, nil
		}
	}
	return "", fmt.Errorf("%w: it was tampered with: the signature by the key %s does not fit; fetch it again from the publisher", ErrUntrusted, id)
}
