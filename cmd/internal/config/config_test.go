package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func load(t testing.TB, text string) (File, error) {
	t.Helper()
	p := filepath.Join(t.TempDir(), "dcfs.yaml")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(p, true)
	if err != nil && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), p)) {
		t.Errorf("the error names no file: %v", err)
	}
	return f, err
}

const everything = `# a host of rack 7
origin:
  - http://origin-1:7070/
  - "https://origin-2"   # the second
state: /srv/dcfs
run: /run/dcfs/
trusted: /etc/dcfs/trusted.d
publish-token-file: '/etc/dcfs/token'
trace-token-file: /etc/dcfs/trace.token
cache: 4GiB
up: 800Mbit/s
down: 0
host-up: 1Gbit/s
host-down: 0
max-peers: 30
listen: :7070
peer-listen: 0.0.0.0:0
rack: r7
peer-tls: /etc/dcfs/tls
peer-allow: [10.0.0.0/8, "fd00::/8"]
web-seed: [http://mirror/releases/, https://b/]
linger: 1m30s
linger-max: 10m
read-timeout: 30s
wait: 60s
at-end: handover
log-level: warn
log-format: json
`

func TestLoad(t *testing.T) {
	f, err := load(t, everything)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(*f.Origin, []string{"http://origin-1:7070", "https://origin-2"}) || *f.State != "/srv/dcfs" || *f.Run != "/run/dcfs" ||
		*f.Trusted != "/etc/dcfs/trusted.d" || *f.PublishTokenFile != "/etc/dcfs/token" || *f.TraceTokenFile != "/etc/dcfs/trace.token" || *f.Cache != 4<<30 || *f.Up != 100e6 || *f.Down != 0 || *f.HostUp != 125e6 || *f.HostDown != 0 ||
		*f.MaxPeers != 30 || *f.Listen != ":7070" || *f.PeerListen != "0.0.0.0:0" || *f.Rack != "r7" || !slices.Equal(*f.WebSeed, []string{"http://mirror/releases/", "https://b/"}) || *f.PeerTLS != "/etc/dcfs/tls" || f.PeerAllow.String() != "10.0.0.0/8,fd00::/8" || *f.Linger != 90*time.Second || *f.LingerMax != 10*time.Minute ||
		*f.ReadTimeout != 30*time.Second || *f.Wait != time.Minute || *f.AtEnd != "handover" || *f.LogLevel != "warn" || *f.LogFormat != "json" {
		t.Errorf("got %+v", f)
	}
	for flag, want := range map[string]string{
		"origin": "http://origin-1:7070/,https://origin-2", "cache": "4GiB", "down": "0", "max-peers": "30", "listen": ":7070",
		"linger": "1m30s", "linger-max": "10m", "peer-allow": "10.0.0.0/8,fd00::/8", "log-format": "json", "publish-token-file": "/etc/dcfs/token", "trace-token-file": "/etc/dcfs/trace.token",
	} {
		if got, ok := f.Lookup(flag); !ok || got != want {
			t.Errorf("%s: %q, %v", flag, got, ok)
		}
	}
	if got, ok := f.Lookup("quiet"); ok {
		t.Errorf("a flag that is no key has the value %q", got)
	}
	if len(f.text) != len(settings) {
		t.Errorf("the example has %d keys of %d", len(f.text), len(settings))
	}
}

// Each key has a field, and each field a key.
func TestEveryKeyHasAField(t *testing.T) {
	fields := 0
	for i := range reflect.TypeFor[File]().NumField() {
		if reflect.TypeFor[File]().Field(i).IsExported() {
			fields++
		}
	}
	if fields != len(settings) {
		t.Errorf("%d fields, %d keys", fields, len(settings))
	}
}

func TestLoadLittle(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "---\n# nothing\n", "{}\n"} {
		if f, err := load(t, text); err != nil || len(f.text) != 0 || f.Cache != nil {
			t.Errorf("%q: %+v, %v", text, f, err)
		}
	}
	for _, text := range []string{"rack: r7", "{rack: r7}", `"rack": "r7"`, "---\nrack: r7\n", "rack: r7 # x", "\track: r7"[1:]} {
		if f, err := load(t, text); err != nil || f.Rack == nil || *f.Rack != "r7" {
			t.Errorf("%q: %+v, %v", text, f, err)
		}
	}
	f, err := load(t, "origin: http://a,http://b/\n")
	if err != nil || !slices.Equal(*f.Origin, []string{"http://a", "http://b"}) {
		t.Errorf("origins on one line: %+v, %v", f.Origin, err)
	}
}

func TestLoadMissing(t *testing.T) {
	p := filepath.Join(t.TempDir(), "none.yaml")
	if f, err := Load(p, false); err != nil || f.text != nil {
		t.Errorf("not required: %+v, %v", f, err)
	}
	if _, ok := (File{}).Lookup("cache"); ok {
		t.Error("no file has a value")
	}
	if _, err := Load(p, true); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "--config") {
		t.Errorf("required: %v", err)
	}
	if _, err := Load(t.TempDir(), false); !errors.Is(err, ErrConfig) {
		t.Errorf("a directory: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	for text, want := range map[string][]string{
		"state: /x\nlingr: 30s\n":               {"line 2", `"lingr"`, "did you mean linger?"},
		"zzzzzzzzzz: 1\n":                       {"line 1", "the keys are at-end, cache"},
		"Cache: 1GiB\n":                         {"line 1", "did you mean cache?"},
		"rack: a\nrack: b\n":                    {"line 2", "rack"},
		"rack: a\nup: fast\n":                   {"line 2", "up", "no rate"},
		"cache: 4G\n":                           {"line 1", "cache", "GiB"},
		"cache: -1\n":                           {"line 1", "cache"},
		"cache:\n":                              {"line 1", "cache", "no value"},
		"cache: ~\n":                            {"cache", "no value"},
		"cache: [1GiB]\n":                       {"cache", "not a list"},
		"cache: {a: 1}\n":                       {"cache", "plain value"},
		"origin: []\n":                          {"origin", "no origin"},
		"origin: [{a: b}]\n":                    {"origin", "plain value"},
		"origin: origin:7070\n":                 {"origin", "http://"},
		"origin:\n- http://a\n- ftp://b\n":      {"line 1", "origin", "ftp://b"},
		"state: var/lib\n":                      {"state", "absolute"},
		"linger: 30\n":                          {"linger", "30s"},
		"linger: -30s\n":                        {"linger", "no duration"},
		"max-peers: 70000\n":                    {"max-peers"},
		"max-peers: 0x10\n":                     {"max-peers"},
		"max-peers: 1.5\n":                      {"max-peers"},
		"listen: 7070\n":                        {"listen", "HOST:PORT"},
		"rack: a b\n":                           {"rack"},
		"at-end: stay\n":                        {"at-end", "handover, unmount, keep"},
		"log-level: trace\n":                    {"log-level", "debug"},
		"log-format: xml\n":                     {"log-format"},
		"- a\n":                                 {"line 1", "key: value"},
		"hello\n":                               {"line 1", "key: value"},
		"rack: a\n---\nrack: b\n":               {"second document"},
		"? [a]\n: b\n":                          {"line 2"},
		"rack: &x a\n":                          {"rack", "plain value"},
		"rack: !!str a\n":                       {"rack", "plain value"},
		"<<: {rack: a}\n":                       {"line 1"},
		"rack: \"a\n":                           {"line 1"},
		"state: /x\n  rack: a\n":                {"line"},
		"\track: a\n":                           {"line"},
		"rack: " + strings.Repeat("a", maxFile): {"more than"},
	} {
		name := text[:min(len(text), 40)]
		_, err := load(t, text)
		if err == nil {
			t.Errorf("%q was taken", name)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: %v lacks %q", name, err, w)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte("rack: &x a\norigin: [*x, http://b]\n"))
	f.Add([]byte("? rack\n: |\n  a\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := parse(in)
		if err != nil {
			return
		}
		for key := range got.text {
			if _, ok := settings[key]; !ok {
				t.Errorf("%q got in", key)
			}
		}
	})
}
