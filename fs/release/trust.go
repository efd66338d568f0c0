package release

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jedisct1/go-minisign"
)

// maxTrusted bounds how many public keys a directory may hold.
const maxTrusted = 1024

// Trust is the set of public keys whose releases are believed. The zero Trust
// holds none. It is immutable and safe for concurrent use.
type Trust struct {
	dir  string
	keys map[[8]byte][]minisign.PublicKey
}

// LoadTrusted reads every *.pub of dir, each a minisign public key. A missing
// directory holds no keys; a file that is no key is an error that names it and
// wraps ErrKey, because a key left out in silence would look like tampering
// later.
func LoadTrusted(dir string) (Trust, error) {
	t := Trust{dir: dir, keys: make(map[[8]byte][]minisign.PublicKey)}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return Trust{}, fmt.Errorf("%w: reading the trusted keys: %w", ErrKey, err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".pub") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if t.Len() == maxTrusted {
			return Trust{}, fmt.Errorf("%w: %s holds more than %d keys", ErrKey, dir, maxTrusted)
		}
		key, err := loadPublic(filepath.Join(dir, e.Name()))
		if err != nil {
			return Trust{}, fmt.Errorf("%w: %w; repair it or move it out of %s", ErrKey, err, dir)
		}
		t.keys[key.KeyId] = append(t.keys[key.KeyId], key)
	}
	return t, nil
}

func loadPublic(path string) (minisign.PublicKey, error) {
	line, err := readKeyFile(path)
	if err != nil {
		return minisign.PublicKey{}, err
	}
	key, err := minisign.NewPublicKey(line)
	if err != nil || key.SignatureAlgorithm != [2]byte{'E', 'd'} {
		return minisign.PublicKey{}, fmt.Errorf("%s is no minisign public key", path)
	}
	return key, nil
}

// Len returns the number of keys.
func (t Trust) Len() int {
	n := 0
	for _, keys := range t.keys {
		n += len(keys)
	}
	return n
}

// KeyIDs returns the IDs of the keys as minisign prints them, sorted, each
// once.
func (t Trust) KeyIDs() []string {
	ids := make([]string, 0, len(t.keys))
	for id := range t.keys {
		ids = append(ids, formatKeyID(id))
	}
	slices.Sort(ids)
	return ids
}

// place says where keys are looked for, for messages.
func (t Trust) place() string {
	if t.dir == "" {
		return "the set of trusted keys, which has no directory"
	}
	return t.dir
}
