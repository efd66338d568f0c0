package agent

import (
	"slices"
	"testing"
)

func TestSeedURLs(t *testing.T) {
	for _, c := range []struct {
		named, own, origins, want []string
		dir                       string
	}{
		{nil, nil, nil, nil, "app/"},
		{nil, []string{"http://o:7070/data/app/"}, []string{"http://o:7070", "http://p:7070/"},
			[]string{"http://o:7070/data/app/", "http://p:7070/data/app/"}, "app/"},
		{[]string{"http://n/r/", "http://m/"}, []string{"http://m/", "http://x/"}, []string{"http://o"},
			[]string{"http://n/r/", "http://m/", "http://x/", "http://o/data/"}, ""},
	} {
		if got := seedURLs(c.named, c.own, c.origins, c.dir); !slices.Equal(got, c.want) {
			t.Errorf("%v: %q", c, got)
		}
	}
}
