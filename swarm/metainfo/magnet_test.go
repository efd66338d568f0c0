package metainfo

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestMagnetComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Magnet{
			Name:     rapid.StringMatching(`([A-Za-z0-9_+-][A-Za-z0-9._+-]{0,5}/){0,2}[A-Za-z0-9_+-]{1,9}`).Draw(t, "name"),
			Trackers: rapid.SliceOfN(rapid.StringMatching(`https?://[a-z]{1,5}(:[0-9]{1,4})?/announce(\?a=b&c=d\+e)?`), 0, 3).Draw(t, "trackers"),
			Peers:    rapid.SliceOfN(rapid.SampledFrom([]string{"10.0.0.1:7071", "[::1]:1", "host.name:65535"}), 0, 3).Draw(t, "peers"),
		}
		copy(m.InfoHash[:], rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(t, "hash"))
		if rapid.Bool().Draw(t, "signed") {
			m.Statement = rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "statement")
			m.Signature = rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "signature")
		}
		got, err := ParseMagnet(m.String())
		if err != nil {
			t.Fatalf("%s: %v", m, err)
		}
		m.Trackers, m.Peers = append([]string(nil), m.Trackers...), append([]string(nil), m.Peers...)
		if !reflect.DeepEqual(got, m) {
			t.Fatalf("%+v\n%+v", got, m)
		}
	})
}

func TestMagnetOfMetainfo(t *testing.T) {
	tr := everything(t)
	m, err := Parse(create(t, tr, params(tr, "app/1.0")))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseMagnet(m.Magnet().String())
	if err != nil || got.InfoHash != m.InfoHash || got.Name != m.Name || !bytes.Equal(got.Signature, m.Signature) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseMagnetRefuses(t *testing.T) {
	hash := "urn:btih:" + hex.EncodeToString(make([]byte, 20))
	good := "magnet:?xt=" + hash
	if _, err := ParseMagnet(good + "&so=1&unknown=x"); err != nil {
		t.Error(err)
	}
	if m, err := ParseMagnet("magnet:?xt=urn:btih:" + strings.Repeat("a", 31) + "b"); err != nil || m.InfoHash[19] != 1 {
		t.Errorf("base32: %v, %v", m, err)
	}
	for _, s := range []string{
		"", "magnet:", "http://x/?xt=" + hash, "magnet:?xt=urn:sha1:" + hash[9:], good + "0", "magnet:?xt=" + hash[:48] + "g",
		good + "&xt=" + hash, good + "&dn=..", good + "&dn=a&dn=b", good + "&tr=nonsense", good + "&x.pe=host", good + "&x.pe=:1",
		good + "&x.pe=h:0", good + "&x.pe=h:65536", good + "&x.dcfs=YQ", good + "&x.dcfs=YQ.", good + "&x.dcfs=YQ.YR", good + "&x.dcfs=YQ==.YQ",
		good + "&x.dcfs=" + strings.Repeat("YWFh", maxSigned) + ".YQ", good + strings.Repeat("&tr=http://x/", 65),
		good + "&a=" + strings.Repeat("x", maxMagnet), good + "&dn=%zz",
	} {
		if _, err := ParseMagnet(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.80q: %v", s, err)
		}
	}
}
