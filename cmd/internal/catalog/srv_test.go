package catalog

import (
	"errors"
	"slices"
	"testing"
)

func TestParseSRV(t *testing.T) {
	got, err := ParseOrigins("http://o:7070,srv:_dcfs._tcp.Example.net.", "srvs:_dcfs._tcp.example.net", "srv:_dcfs._tcp.example.net")
	if want := []string{"http://o:7070", "srv:_dcfs._tcp.example.net", "srvs:_dcfs._tcp.example.net"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"srv:", "srv:.", "srv:a..b", "srv://a", "srv:a/b", "srv:a b", "srv:a:70"} {
		if got, err := ParseOrigins(bad); !errors.Is(err, ErrUsage) {
			t.Errorf("%s: %q, %v", bad, got, err)
		}
	}
	if got, err := Expand(t.Context(), []string{"http://o:7070"}); err != nil || !slices.Equal(got, []string{"http://o:7070"}) {
		t.Errorf("%q, %v", got, err)
	}
}
