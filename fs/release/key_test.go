package release

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// newKey makes a key pair in dir and loads it.
func newKey(t testing.TB, dir, name string) *Secret {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := GenerateKey(path); err != nil {
		t.Fatal(err)
	}
	key, err := LoadSecret(path + ".key")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func trusted(t testing.TB, dir string) Trust {
	t.Helper()
	trust, err := LoadTrusted(dir)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

func TestGenerateKey(t *testing.T) {
	dir := t.TempDir()
	key := newKey(t, dir, "k")
	for file, mode := range map[string]os.FileMode{"k.key": 0o600, "k.pub": 0o644} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; want mode %v", file, info.Mode(), err, mode)
		}
	}
	trust := trusted(t, dir)
	if ids := trust.KeyIDs(); len(ids) != 1 || ids[0] != key.KeyID() || trust.Len() != 1 {
		t.Fatalf("the pair has the IDs %s and %v", key.KeyID(), ids)
	}
	sig, err := key.sign([]byte("hello"), "comment")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := trust.verify([]byte("hello"), sig); err != nil || id != key.KeyID() {
		t.Errorf("verify: %q, %v", id, err)
	}
	for _, v := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(v, *key); s != "secret key "+key.KeyID() {
			t.Errorf("%s prints %s", v, s)
		}
	}
}

func TestGenerateKeyOverwritesNothing(t *testing.T) {
	for _, there := range []string{"k.key", "k.pub"} {
		dir := t.TempDir()
		p := filepath.Join(dir, there)
		if err := os.WriteFile(p, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := GenerateKey(filepath.Join(dir, "k")); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), p) {
			t.Errorf("%s there: %v", there, err)
		}
		entries, _ := os.ReadDir(dir)
		if data, _ := os.ReadFile(p); string(data) != "mine" || len(entries) != 1 {
			t.Errorf("%s there: %q, %d files", there, data, len(entries))
		}
	}
	if err := GenerateKey(filepath.Join(t.TempDir(), "no", "k")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestLoadSecretRefuses(t *testing.T) {
	dir := t.TempDir()
	newKey(t, dir, "k")
	good, err := os.ReadFile(filepath.Join(dir, "k.key"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(good), "\n")
	public, _ := os.ReadFile(filepath.Join(dir, "k.pub"))
	flipped := []byte(lines[1])
	flipped[100] ^= 1 // within the seed
	for name, text := range map[string]string{
		"empty":       "",
		"one line":    lines[1],
		"no comment":  "comment\n" + lines[1] + "\n",
		"three lines": string(good) + "x\n",
		"public":      string(public),
		"short":       lines[0] + "\n" + lines[1][:40] + "\n",
		"damaged":     lines[0] + "\n" + string(flipped) + "\n",
		"large":       string(good) + strings.Repeat("\n", maxKeyFile),
		"with a password": "untrusted comment: minisign encrypted secret key\n" +
			"RWRTY0IyxYlIT2FS5i8PqThE9swBemvY94JDIMqo75UBK3XO/aUAAAACAAAAAAAAAEAAAAAAUhlw8nsT1tuVUekS6Je3iUwoWFdb1xiLonO35G66RiVvM/QgrBtnDa0Dhbt7H3oYMh4aFLiNxMs24gzXqHVsvRVthMeF08fN8r6siRdBpiBZ36B7rox2lmYIYgg5T8qt7tOxo9doAxk=\n",
	} {
		p := filepath.Join(dir, "bad")
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if key, err := LoadSecret(p); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: %v, %v", name, key, err)
		}
	}
	for _, p := range []string{dir, filepath.Join(dir, "none")} {
		if _, err := LoadSecret(p); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestLoadTrusted(t *testing.T) {
	if trust := trusted(t, filepath.Join(t.TempDir(), "none")); trust.Len() != 0 {
		t.Error("a missing directory has keys")
	}
	dir := t.TempDir()
	newKey(t, dir, "a")
	newKey(t, dir, "b")
	for _, name := range []string{"README", ".hidden.pub"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("no key"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if trust := trusted(t, dir); trust.Len() != 2 {
		t.Errorf("%d keys of 2", trust.Len())
	}
	key, _ := os.ReadFile(filepath.Join(dir, "a.key"))
	for name, text := range map[string]string{
		"empty": "", "secret": string(key), "text": "untrusted comment: x\nhello\n", "large": strings.Repeat("x", 1<<20),
		"other algorithm": "untrusted comment: x\nWFgMBW0AiacKfjk8LcBtW1Mp6OCPnFHzXMLo4TFNVmJcAyRZ9+CiZ9IY\n",
	} {
		p := filepath.Join(dir, "bad.pub")
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadTrusted(dir); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// debian runs Debian's minisign in dir.
func debian(t *testing.T, dir string, args ...string) {
	t.Helper()
	tool, err := exec.LookPath("minisign")
	if err != nil {
		t.Skip("SKIPPED: minisign is not installed, so nothing shows that it and dcfs understand each other: apt install minisign")
	}
	cmd := exec.CommandContext(t.Context(), tool, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("minisign %v: %v\n%s", args, err, out)
	}
}

func TestMinisignUnderstandsUs(t *testing.T) {
	dir := t.TempDir()
	key := newKey(t, dir, "k")
	data := []byte(`{"schema":1}`)
	sig, err := key.sign(data, "dcfs release app/web-1")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"statement": data, "statement.minisig": sig} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	debian(t, dir, "-V", "-H", "-p", "k.pub", "-m", "statement")
	// It can sign with our secret key, and derive our public key from it.
	debian(t, dir, "-S", "-s", "k.key", "-m", "statement", "-x", "theirs")
	debian(t, dir, "-V", "-p", "k.pub", "-m", "statement", "-x", "theirs")
	debian(t, dir, "-R", "-s", "k.key", "-p", "again.pub")
	ours, _ := os.ReadFile(filepath.Join(dir, "k.pub"))
	again, _ := os.ReadFile(filepath.Join(dir, "again.pub"))
	if string(ours) != string(again) {
		t.Errorf("the public keys differ:\n%s%s", ours, again)
	}
}

func TestWeUnderstandMinisign(t *testing.T) {
	dir := t.TempDir()
	data := []byte(`{"schema":1}`)
	if err := os.WriteFile(filepath.Join(dir, "statement"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	debian(t, dir, "-G", "-W", "-p", "k.pub", "-s", "k.key")
	debian(t, dir, "-S", "-s", "k.key", "-m", "statement", "-x", "hashed")
	debian(t, dir, "-S", "-l", "-s", "k.key", "-m", "statement", "-x", "legacy")
	trust := trusted(t, dir)
	for _, name := range []string{"hashed", "legacy"} {
		sig, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.verify(data, sig); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := trust.verify(append(data, '\n'), sig); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s, other data: %v", name, err)
		}
	}
	key, err := LoadSecret(filepath.Join(dir, "k.key"))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := key.sign(data, "c")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := trust.verify(data, sig); err != nil || id != trust.KeyIDs()[0] {
		t.Errorf("our signature with their key: %s, %v", id, err)
	}
}
