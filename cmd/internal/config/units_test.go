package config

import (
	"math"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1048576": 1 << 20, "200MiB": 200 << 20, "4GiB": 4 << 30, "4GB": 4e9, "4 gb": 4e9, "1.5KiB": 1536,
		"10B": 10, " 7kB ": 7000, "2TiB": 2 << 40, "1PiB": 1 << 50, "0.3kB": 300, "1.9B": 1,
		"9223372036854775807": math.MaxInt64, "4gIb": 4 << 30,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for in, reason := range map[string]string{
		"": "want a number", "GiB": "want a number", "-1": "want a number", "1e9": "want a number", "4G": "GiB", "4k": "KiB", "4Gi": "not known",
		"10MB/s": "want a number", "1,000": "want a number", "0x10": "want a number", "4 GiB x": "want a number", "9223372036854775808": "too large",
		"8192PiB": "too large", "80Mbit": "not known", "1.": "want a number", ".5GB": "want a number",
		strings.Repeat("9", 500): "want a number", "inf": "want a number", "NaN": "want a number",
	} {
		if got, err := ParseSize(in); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %d, %v; want %q", in, got, err, reason)
		}
	}
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "0MB/s": 0, "100MB/s": 100e6, "800Mbit/s": 100e6, "800mbit": 100e6, "20MiB": 20 << 20, "1Gbit/s": 125e6,
		"1048576": 1 << 20, "12.5 MB/s": 12.5e6, "8bit/s": 1, "1B/s": 1, "1kbit/s": 125, "8Kibit/s": 1024,
	} {
		if got, err := ParseRate(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
	for in, reason := range map[string]string{
		"": "want a number", "fast": "want a number", "-1MB/s": "want a number", "100Mb/s": "ambiguous", "100Mbps": "ambiguous",
		"100MBps": "ambiguous", "100M/s": "ambiguous", "1bit/s": "less than", "0.5B/s": "less than", "1xbit/s": "not known",
		"10MB/min": "want a number", "99999999999PB/s": "too large",
	} {
		if got, err := ParseRate(in); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %d, %v; want %q", in, got, err, reason)
		}
	}
}

func TestParseListen(t *testing.T) {
	for in, want := range map[string]string{
		":7070": ":7070", "0.0.0.0:0": "0.0.0.0:0", "[::1]:7071": "[::1]:7071", "host-1.example:80": "host-1.example:80",
		"127.0.0.1:07070": "127.0.0.1:7070", "[fe80::1%eth0]:1": "[fe80::1%eth0]:1",
	} {
		if got, err := ParseListen(in); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "7070", "host", "::1:7070x", "::1", ":http", ":-1", ":65536", "a b:1", "http://x:1", "[::1:1", "h\x00:1", strings.Repeat("a", 300) + ":1"} {
		if got, err := ParseListen(in); err == nil {
			t.Errorf("%q was taken as %q", in, got)
		}
	}
}

// No text makes a parser panic or gives a negative number.
func FuzzUnits(f *testing.F) {
	for _, s := range []string{"4GiB", "800Mbit/s", "[::1]:7070", "0.000000001PiB", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil && n < 0 {
			t.Errorf("size %q is %d", s, n)
		}
		if n, err := ParseRate(s); err == nil && n < 0 {
			t.Errorf("rate %q is %d", s, n)
		}
		if a, err := ParseListen(s); err == nil {
			if b, err := ParseListen(a); err != nil || a != b {
				t.Errorf("%q, read as %q, is then %q, %v", s, a, b, err)
			}
		}
	})
}
