package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/jedisct1/go-minisign"
)

// maxKeyFile bounds a key file in bytes; minisign's are below 300.
const maxKeyFile = 4 << 10

// Secret is a minisign secret key that can sign. Printing one shows its ID and
// nothing more.
type Secret struct{ key minisign.PrivateKey }

// KeyID returns the ID as minisign prints it: 16 hexadecimal digits.
func (s Secret) KeyID() string { return formatKeyID(s.key.KeyId) }

// String returns a description without the secret.
func (s Secret) String() string { return "secret key " + s.KeyID() }

// GoString returns a description without the secret.
func (s Secret) GoString() string { return s.String() }

// formatKeyID prints an ID as minisign does: a little-endian number.
func formatKeyID(id [8]byte) string {
	return fmt.Sprintf("%016X", binary.LittleEndian.Uint64(id[:]))
}

// GenerateKey makes a new key pair and writes path.key (mode 0600, a minisign
// secret key without a password) and path.pub. It overwrites nothing: when
// either file is there it writes neither and returns an error that wraps
// ErrExists.
func GenerateKey(path string) error {
	secretFile, publicFile := path+".key", path+".pub"
	for _, f := range []string{secretFile, publicFile} {
		if _, err := os.Lstat(f); err == nil {
			return existsError(f)
		}
	}
	secret, public, err := newPair()
	if err != nil {
		return err
	}
	if err := writeNew(secretFile, secret, 0o600); err != nil {
		return err
	}
	if err := writeNew(publicFile, public, 0o644); err != nil {
		return errors.Join(err, os.Remove(secretFile))
	}
	return syncDir(filepath.Dir(path))
}

func existsError(file string) error {
	return fmt.Errorf("%s is %w; a key is never overwritten: give another path or move the old pair away", file, ErrExists)
}

// newPair returns the two files of a fresh key pair. The layout is that of
// `minisign -G -W`: the algorithm, no key derivation, the checksum algorithm,
// empty salt and limits, the ID, seed and public key, and an empty checksum.
func newPair() (secret, public []byte, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	raw := append([]byte("Ed\x00\x00B2"), make([]byte, 32+8+8)...)
	raw = append(append(append(raw, id[:]...), priv...), make([]byte, 32)...)
	secret = keyFile("dcfs secret key "+formatKeyID(id)+", no password: keep it to yourself", raw)
	public = keyFile("minisign public key "+formatKeyID(id), append(append([]byte("Ed"), id[:]...), pub...))
	return secret, public, nil
}

func keyFile(comment string, raw []byte) []byte {
	return fmt.Appendf(nil, "untrusted comment: %s\n%s\n", comment, base64.StdEncoding.EncodeToString(raw))
}

// writeNew writes a file that must not be there, and syncs it. What it could
// not write whole it removes again.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) {
		return existsError(path)
	}
	if err != nil {
		return fmt.Errorf("writing a key: %w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing a key: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// LoadSecret reads a minisign secret key without a password. Its errors wrap
// ErrKey.
func LoadSecret(path string) (*Secret, error) {
	line, err := readKeyFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	key, err := minisign.NewPrivateKey(line)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is no minisign secret key: %w", ErrKey, path, err)
	}
	if key.IsEncrypted() {
		return nil, fmt.Errorf("%w: %s is protected by a password; make a copy without one with `minisign -C -W -s COPY`", ErrKey, path)
	}
	// A key whose halves do not belong together would make signatures that
	// give the secret away.
	if !bytes.Equal(ed25519.NewKeyFromSeed(key.SecretKey[:32]), key.SecretKey[:]) {
		return nil, fmt.Errorf("%w: %s is damaged: its public half does not fit its secret half", ErrKey, path)
	}
	return &Secret{key}, nil
}

// readKeyFile returns the second line of a key file, which holds the key.
func readKeyFile(path string) (string, error) {
	data, err := readBounded(path, maxKeyFile)
	if err != nil {
		return "", err
	}
	lines := bytes.Split(bytes.TrimRight(data, "\r\n"), []byte("\n"))
	if len(lines) != 2 || !bytes.HasPrefix(lines[0], []byte("untrusted comment:")) {
		return "", fmt.Errorf("%s is no key file: want a comment line and a line with the key", path)
	}
	return string(bytes.TrimRight(lines[1], "\r")), nil
}

// readBounded reads a regular file of at most limit bytes. It never waits for
// a FIFO that somebody put in the file's place.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file", path), err)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, nil
}
