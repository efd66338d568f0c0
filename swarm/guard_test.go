package swarm

import (
	"strings"
	"testing"
)

func TestHarmless(t *testing.T) {
	for s, want := range map[string]bool{
		"d8:msg_typei0e5:piecei0ee":                              true,
		"d8:msg_typei1e5:piecei3e10:total_sizei9eeraw\xff bytes": true,
		"d8:msg_typei1e5:piecei3eelllllllllllllllllllll":         true, // data that looks like lists
		"d1:md11:ut_metadatai1ee13:metadata_sizei20000000ee":     true,
		"de":                         true,
		"d8:msg_typei0e5:piecei-1ee": false,
		"d8:msg_typei0e5:piecei1125899906842624ee":     false,
		"d8:msg_typei0e5:piecei99999999999999999999ee": false,
		"d13:metadata_sizei4611686018427387904ee":      false,
		"d13:metadata_sizei-9223372036854775808ee":     false,
		"d13:metadata_sizei4294967296ee":               false,
		"d1:a" + strings.Repeat("l", 200_000):          false,
		"llllll":                                       false, "": false, "i1e": false, "d": false, "d1:a99999:": false, "x": false,
	} {
		if got := harmless([]byte(s)); got != want {
			t.Errorf("%.60q: %v", s, got)
		}
	}
}

// Whatever a peer sends, judging it neither panics nor lets a bad number pass.
func FuzzHarmless(f *testing.F) {
	f.Add([]byte("d8:msg_typei0e5:piecei-1ee"))
	f.Add([]byte("d8:msg_typei1e5:piecei3e10:total_sizei9eeraw"))
	f.Add([]byte("d1:md11:ut_metadatai1ee1:pi7071e4:reqqi250e13:metadata_sizei9e1:v4:dcfse"))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := string(b)
		if harmless(b) && (b[0] != 'd' || strings.HasPrefix(before, "d5:piecei-")) {
			t.Errorf("%q is taken for harmless", b)
		}
		if string(b) != before {
			t.Error("judging changed the message")
		}
	})
}
