package release

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/fs/tree"
	"dcfs/swarm/metainfo"
)

var (
	created = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	expires = created.Add(24 * time.Hour)
)

// made returns the metainfo of a small release with the given content.
func made(t testing.TB, name, content string) *metainfo.Metainfo {
	t.Helper()
	tr, err := tree.Build([]tree.Node{
		{Path: "bin", Kind: tree.Dir, Mode: 0o755},
		{Path: "bin/app", Kind: tree.File, Mode: 0o755, Size: int64(len(content)), Sum: sha256.Sum256([]byte(content))},
	}, tree.Plan{})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum([]byte(content))
	raw, err := metainfo.Create(tr, metainfo.Params{
		Name: name, Pieces: sum[:], Trackers: []string{"http://origin:7070/announce"}, WebSeeds: []string{"http://origin:7070/data/"},
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := metainfo.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func sealed(t testing.TB, m *metainfo.Metainfo, key *Secret) []byte {
	t.Helper()
	raw, err := Seal(m, key, created, expires)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func reparse(t testing.TB, raw []byte) *metainfo.Metainfo {
	t.Helper()
	m, err := metainfo.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSealAndOpen(t *testing.T) {
	dir := t.TempDir()
	key := newKey(t, dir, "k")
	m := made(t, "app/web-1", "content")
	raw := sealed(t, m, key)
	if again := sealed(t, m, key); !bytes.Equal(raw, again) {
		t.Error("sealing twice gives different bytes")
	}
	if m.Statement != nil || m.Signature != nil {
		t.Error("Seal changed the metainfo")
	}
	opt := OpenOptions{Trust: trusted(t, dir), Want: "app/web-1", Now: created.Add(time.Hour)}
	check := func(how string, r *Release, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", how, err)
			return
		}
		if r.Name != "app/web-1" || !r.Signed || r.KeyID != key.KeyID() || !r.Created.Equal(created) || !r.Expires.Equal(expires) {
			t.Errorf("%s: %+v", how, r)
		}
		if r.InfoHash != m.InfoHash || !bytes.Equal(r.Info, m.Info) || r.Tree.Files() != 1 || r.Layout.Count() != 1 ||
			r.Hash(0) != sha1.Sum([]byte("content")) || len(r.Trackers) != 1 {
			t.Errorf("%s: the content is not what was sealed", how)
		}
		if _, err := Open(r.Metainfo, opt); err != nil {
			t.Errorf("%s: its own metainfo cannot be opened: %v", how, err)
		}
	}
	r, err := Open(raw, opt)
	check("Open", r, err)
	if err == nil && (!bytes.Equal(r.Metainfo, raw) || len(r.WebSeeds) != 1) {
		t.Error("Open does not keep the metainfo")
	}
	s := reparse(t, raw)
	r, err = OpenParsed(s, opt)
	check("OpenParsed", r, err)
	link, err := metainfo.ParseMagnet(s.Magnet().String())
	if err != nil {
		t.Fatal(err)
	}
	r, err = OpenMagnet(link, m.Info, opt)
	check("OpenMagnet", r, err)
	link.Name = ""
	r, err = OpenMagnet(link, m.Info, opt)
	check("OpenMagnet without a name", r, err)
}

// tamper is one way in which a release is not to be trusted, and the words
// that tell it from the others.
type tamper struct {
	change func(m *metainfo.Metainfo, opt *OpenOptions)
	reason string
}

func tampers(t *testing.T, dir string, key *Secret) map[string]tamper {
	other := made(t, "app/web-1", "another")
	otherSealed := reparse(t, sealed(t, other, key))
	renamed := made(t, "app2/web-1", "content")
	renamedSealed := reparse(t, sealed(t, renamed, key))
	strangers := reparse(t, sealed(t, made(t, "app/web-1", "content"), newKey(t, t.TempDir(), "stranger")))
	set := func(f func(m *metainfo.Metainfo)) func(*metainfo.Metainfo, *OpenOptions) {
		return func(m *metainfo.Metainfo, _ *OpenOptions) { f(m) }
	}
	at := func(now time.Time) func(*metainfo.Metainfo, *OpenOptions) {
		return func(_ *metainfo.Metainfo, opt *OpenOptions) { opt.Now = now }
	}
	flip := func(b []byte, i int) []byte {
		out := bytes.Clone(b)
		out[i] ^= 1
		return out
	}
	sign := func(statement string) func(*metainfo.Metainfo, *OpenOptions) {
		return set(func(m *metainfo.Metainfo) {
			sig, err := key.sign([]byte(statement), "c")
			if err != nil {
				t.Fatal(err)
			}
			m.Statement, m.Signature = []byte(statement), sig
		})
	}
	return map[string]tamper{
		"no signature":       {set(func(m *metainfo.Metainfo) { m.Statement, m.Signature = nil, nil }), "no signature"},
		"signature cut off":  {set(func(m *metainfo.Metainfo) { m.Signature = nil }), "no minisign signature"},
		"statement cut off":  {set(func(m *metainfo.Metainfo) { m.Statement = nil }), "tampered"},
		"signature is noise": {set(func(m *metainfo.Metainfo) { m.Signature = []byte("noise") }), "no minisign signature"},
		"signature is long":  {set(func(m *metainfo.Metainfo) { m.Signature = bytes.Repeat([]byte("x"), maxSignature+1) }), "are the limit"},
		"stranger's key":     {set(func(m *metainfo.Metainfo) { m.Statement, m.Signature = strangers.Statement, strangers.Signature }), keyIDOf(strangers) + ", which is not in " + dir},
		"statement flipped":  {set(func(m *metainfo.Metainfo) { m.Statement = flip(m.Statement, 40) }), "tampered"},
		"comment flipped": {set(func(m *metainfo.Metainfo) {
			m.Signature = bytes.Replace(m.Signature, []byte("dcfs release"), []byte("dcfs rElease"), 1)
		}), "tampered"},
		"other content": {set(func(m *metainfo.Metainfo) { m.Statement, m.Signature = otherSealed.Statement, otherSealed.Signature }), "other content"},
		"other info dictionary": {set(func(m *metainfo.Metainfo) {
			m.Info, m.InfoHash, m.InfoSHA256 = other.Info, other.InfoHash, other.InfoSHA256
		}), "other content"},
		"same SHA-1 only": {set(func(m *metainfo.Metainfo) { m.InfoSHA256[0] ^= 1 }), "other content"},
		"renamed outside": {set(func(m *metainfo.Metainfo) { m.Name = "app2/web-1" }), "signed as the release app/web-1"},
		"another release": {func(m *metainfo.Metainfo, opt *OpenOptions) {
			*m = *renamedSealed
		}, "asked for the release app/web-1"},
		"not canonical": {sign(" " + canonical), "canonical"},
		"signed noise":  {sign("noise"), "no JSON"},
		"expired":       {at(expires), "expired"},
		"long expired":  {at(expires.Add(time.Hour)), "expired"},
		"not yet valid": {at(created.Add(-maxAhead - time.Second)), "not valid yet"},
	}
}

// keyIDOf returns the ID in an untrusted signature.
func keyIDOf(m *metainfo.Metainfo) string {
	_, err := Trust{}.verify(m.Statement, m.Signature)
	_, after, _ := strings.Cut(err.Error(), "signed by the key ")
	id, _, _ := strings.Cut(after, ",")
	return id
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	key := newKey(t, dir, "k")
	good := sealed(t, made(t, "app/web-1", "content"), key)
	for name, c := range tampers(t, dir, key) {
		t.Run(name, func(t *testing.T) {
			m := reparse(t, good)
			opt := OpenOptions{Trust: trusted(t, dir), Want: "app/web-1", Now: created.Add(time.Hour)}
			c.change(m, &opt)
			for _, unsigned := range []bool{false, true} {
				opt.AllowUnsigned = unsigned
				r, err := OpenParsed(m, opt)
				if unsigned && name == "no signature" {
					if err != nil || r.Signed || r.KeyID != "" || !r.Created.IsZero() {
						t.Errorf("unsigned and allowed: %+v, %v", r, err)
					}
					continue
				}
				if !errors.Is(err, ErrUntrusted) || r != nil {
					t.Fatalf("got %v, %v", r, err)
				}
				if !strings.Contains(err.Error(), c.reason) {
					t.Errorf("the reason is missing in: %v", err)
				}
			}
		})
	}
}

// Any single byte that changes in a sealed release makes it refused or is
// outside of what is believed.
func TestOpenRefusesEveryFlippedByte(t *testing.T) {
	dir := t.TempDir()
	key := newKey(t, dir, "k")
	m := made(t, "app/web-1", "content")
	good := sealed(t, m, key)
	opt := OpenOptions{Trust: trusted(t, dir), Want: "app/web-1", Now: created.Add(time.Hour)}
	for i := range good {
		raw := bytes.Clone(good)
		raw[i] ^= 1
		r, err := Open(raw, opt)
		if err != nil {
			if !errors.Is(err, ErrUntrusted) && !errors.Is(err, metainfo.ErrInvalid) {
				t.Fatalf("byte %d: %v", i, err)
			}
			continue
		}
		if !r.Signed || r.Name != "app/web-1" || !bytes.Equal(r.Info, m.Info) || !r.Created.Equal(created) || !r.Expires.Equal(expires) {
			t.Fatalf("byte %d (%q): the release changed and was taken", i, good[max(0, i-20):i+1])
		}
	}
}

func TestOpenWithinTheClocksError(t *testing.T) {
	dir := t.TempDir()
	raw := sealed(t, made(t, "web-1", "content"), newKey(t, dir, "k"))
	for _, now := range []time.Time{created.Add(-maxAhead), created, expires.Add(-time.Second)} {
		if _, err := Open(raw, OpenOptions{Trust: trusted(t, dir), Now: now}); err != nil {
			t.Errorf("at %s: %v", now, err)
		}
	}
}

func TestTwoKeysWithOneID(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	key := newKey(t, a, "k")
	impostor := newKey(t, b, "k")
	impostor.key.KeyId = key.key.KeyId
	raw := sealed(t, made(t, "web-1", "content"), impostor)
	opt := OpenOptions{Trust: trusted(t, a), Now: created}
	if _, err := Open(raw, opt); !errors.Is(err, ErrUntrusted) {
		t.Fatalf("another key with the trusted ID: %v", err)
	}
	pub := impostor.key.PublicKey()
	opt.Trust.keys[pub.KeyId] = append(opt.Trust.keys[pub.KeyId], pub)
	if _, err := Open(raw, opt); err != nil {
		t.Fatalf("both trusted: %v", err)
	}
}

func TestOpenMagnetRefuses(t *testing.T) {
	dir := t.TempDir()
	key := newKey(t, dir, "k")
	m := reparse(t, sealed(t, made(t, "app/web-1", "content"), key))
	opt := OpenOptions{Trust: trusted(t, dir), Now: created}
	for name, change := range map[string]func(*metainfo.Magnet){
		"other infohash":     func(l *metainfo.Magnet) { l.InfoHash[0] ^= 1 },
		"other name":         func(l *metainfo.Magnet) { l.Name = "app/web-2" },
		"other application":  func(l *metainfo.Magnet) { l.Name = "app2/web-1" },
		"no signature":       func(l *metainfo.Magnet) { l.Statement, l.Signature = nil, nil },
		"statement is noise": func(l *metainfo.Magnet) { l.Name, l.Statement = "", []byte("noise") },
	} {
		link := m.Magnet()
		change(&link)
		if r, err := OpenMagnet(link, m.Info, opt); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if _, err := OpenMagnet(m.Magnet(), []byte("noise"), opt); !errors.Is(err, metainfo.ErrInvalid) {
		t.Errorf("noise: %v", err)
	}
}

func TestSealRefuses(t *testing.T) {
	key := newKey(t, t.TempDir(), "k")
	if _, err := Seal(made(t, "web-1", "content"), key, created, created); err == nil {
		t.Error("a release that expires when it is made was sealed")
	}
	if _, err := Seal(made(t, "web-1", "content"), key, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}); err == nil {
		t.Error("a year of five digits was sealed")
	}
	m := made(t, "web-1", "content")
	m.Info = append(bytes.Clone(m.Info), 'x')
	if _, err := Seal(m, key, created, expires); err == nil {
		t.Error("a changed info dictionary was sealed")
	}
	m = made(t, "web-1", "content")
	m.Name = "../web-1"
	if _, err := Seal(m, key, created, expires); err == nil {
		t.Error("a bad name was sealed")
	}
}

// What a sealed release holds is what Debian's minisign verifies.
func TestMinisignVerifiesASealedRelease(t *testing.T) {
	dir := t.TempDir()
	m := reparse(t, sealed(t, made(t, "app/web-1", "content"), newKey(t, dir, "k")))
	for name, content := range map[string][]byte{"statement": m.Statement, "statement.minisig": m.Signature} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	debian(t, dir, "-V", "-p", "k.pub", "-m", "statement")
}

// And the reverse: a statement that minisign signed is opened.
func TestOpenWhatMinisignSigned(t *testing.T) {
	dir := t.TempDir()
	debian(t, dir, "-G", "-W", "-p", "k.pub", "-s", "k.key")
	m := made(t, "app/web-1", "content")
	text, err := statement{Name: m.Name, InfoHash: m.InfoHash, InfoSHA256: m.InfoSHA256, Created: created}.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "statement"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, legacy := range [][]string{nil, {"-l"}} {
		debian(t, dir, append([]string{"-S", "-s", "k.key", "-m", "statement", "-x", "sig"}, legacy...)...)
		if m.Signature, err = os.ReadFile(filepath.Join(dir, "sig")); err != nil {
			t.Fatal(err)
		}
		m.Statement = text
		if r, err := Open(m.Encode(), OpenOptions{Trust: trusted(t, dir), Now: created}); err != nil || !r.Expires.IsZero() {
			t.Errorf("%v: %v, %v", legacy, r, err)
		}
	}
}
