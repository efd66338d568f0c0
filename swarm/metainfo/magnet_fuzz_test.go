package metainfo

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// What is taken for a magnet link is in bounds and comes back from its own
// text; what is not is ErrInvalid.
func FuzzMagnet(f *testing.F) {
	hash := strings.Repeat("0a", 20)
	for _, s := range []string{
		"magnet:?xt=urn:btih:" + hash, "magnet:?xt=urn:btih:" + strings.Repeat("a", 32),
		"magnet:?xt=urn:btih:" + hash + "&dn=app%2F1.0&tr=http%3A%2F%2Fo%3A7070%2Fannounce&x.pe=10.0.0.1:7071&x.dcfs=e30.c2ln",
		"magnet:?xt=urn:btih:" + hash + "&x.pe=[::1]:1&so=0-4&dn=..", "MAGNET:?xt=" + hash, "magnet:" + strings.Repeat("&x.pe=a:1", 99),
		"magnet:?xt=urn:btih:" + hash + "&x.dcfs=.", "magnet:?%zz", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMagnet(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if len(m.Statement) > maxSigned || len(m.Signature) > maxSigned || len(m.Trackers)+len(m.Peers) > len(s) {
			t.Fatalf("out of bounds: %+v", m)
		}
		if text := m.String(); len(text) <= maxMagnet { // escapes can be longer than they were
			if back, err := ParseMagnet(text); err != nil || !reflect.DeepEqual(back, m) {
				t.Fatalf("%+v\n%+v, %v", m, back, err)
			}
		}
	})
}
