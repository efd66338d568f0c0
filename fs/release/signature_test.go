package release

import (
	"errors"
	"path/filepath"
	"testing"
)

// Nothing but the right signature is ever taken, and all else is ErrUntrusted.
func FuzzSignature(f *testing.F) {
	dir := f.TempDir()
	if err := GenerateKey(filepath.Join(dir, "k")); err != nil {
		f.Fatal(err)
	}
	key, err := LoadSecret(filepath.Join(dir, "k.key"))
	if err != nil {
		f.Fatal(err)
	}
	trust, err := LoadTrusted(dir)
	if err != nil {
		f.Fatal(err)
	}
	data := []byte("what was signed")
	right, err := key.sign(data, "comment")
	if err != nil {
		f.Fatal(err)
	}
	if _, err := trust.verify(data, right); err != nil {
		f.Fatal(err)
	}
	f.Add(right)
	f.Add(right[:len(right)/2])
	for _, s := range []string{"", "untrusted comment: x\nRUQ=\ntrusted comment: y\nAAAA", "\n\n\n\n", "untrusted comment: \r\n\r\n"} {
		f.Add([]byte(s))
	}
	other := []byte("something else")
	f.Fuzz(func(t *testing.T, sig []byte) {
		if id, err := trust.verify(other, sig); !errors.Is(err, ErrUntrusted) || id != "" {
			t.Fatalf("%q is taken for a signature by %q: %v", sig, id, err)
		}
	})
}
