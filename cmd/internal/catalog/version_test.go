package catalog

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	seg := strings.Repeat("a", 200)
	for _, good := range []string{
		"web-1", "app/2026-01-02_3.4+git", "-x", "+", "a..b", "a.torrent/b", "xtorrent", ".x"[1:],
		seg, strings.TrimSuffix(strings.Repeat("abc/", 8), "/"),
	} {
		if v, err := ParseVersion(good); err != nil || string(v) != good {
			t.Errorf("%.40q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "/", "a/", "/a", "a//b", ".", "..", ".a", "a/.b", "a/../b", "a b", "a:b", "a\x00", "é", "a\n", "a%2Fb", "a?b", "a#b",
		"web.torrent", "app/web.torrent", "web.trace", "a\\b", seg + "a", strings.Repeat("a/", 8) + "a",
	} {
		if v, err := ParseVersion(bad); !errors.Is(err, ErrUsage) || v != "" {
			t.Errorf("%.40q: %q, %v", bad, v, err)
		}
	}
}

func TestVersionsInJSONAreChecked(t *testing.T) {
	var r Release
	if err := json.Unmarshal([]byte(`{"version":"../../etc"}`), &r); err == nil {
		t.Error("accepted ../../etc")
	}
	if err := r.Validate(); err == nil {
		t.Error("a release without a version is valid")
	}
	if err := release("a", torrentA).Validate(); err != nil {
		t.Error(err)
	}
}

func TestParseOrigins(t *testing.T) {
	got, err := ParseOrigins("http://A:7070/, https://b/x/", "http://a:7070", "", "http://[fd00::1]:7070")
	want := []string{"http://a:7070", "https://b/x", "http://[fd00::1]:7070"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v", got, err)
	}
	if got := Trackers(got)[1]; got != "https://b/x/announce" {
		t.Errorf("tracker %s", got)
	}
	for _, bad := range []string{"a:7070", "a", "ftp://a", "http://", "http:a", "http://u:p@a", "http://a?x", "http://a#x", "http://a\x7f"} {
		if got, err := ParseOrigins(bad); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: %v %v", bad, got, err)
		}
	}
}

func FuzzSplitURL(f *testing.F) {
	for _, s := range []string{
		"http://a/v1/releases/b", "https://a:1/p/v1/releases/b/c.torrent", "http://a/v1/releases/v1/releases/x",
		"http://a/v1/releases/%2e%2e", "http://a/v1/releases/../x", "http://a/v1/releases/x?y", "http://a/v1/releases/%zz", "http://",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		origin, version, err := splitURL(s)
		if err != nil {
			if !errors.Is(err, ErrUsage) {
				t.Fatal(err)
			}
			return
		}
		if _, err := ParseVersion(string(version)); err != nil {
			t.Fatal(err)
		}
		if again, err := ParseOrigins(origin); err != nil || len(again) != 1 || again[0] != origin {
			t.Fatalf("%q became %q, %v", origin, again, err)
		}
	})
}
