package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dcfs/cmd/internal/control"
	"dcfs/fs/activate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hash = "0123456789abcdef0123456789abcdef01234567"

// farm runs command lines on hosts that are directories: their links are real
// and moved by package activate; only the copying is played.
type farm struct {
	t     *testing.T
	dir   string
	mu    sync.Mutex
	ready map[string]bool
	calls map[string][]string // by host, the second word of each command
	held  map[string][]control.Held

	// fault, if set, may answer in place of a host; after tells whether the
	// command was carried out by then.
	fault func(ctx context.Context, host, verb string, after bool) error
}

func newFarm(t *testing.T, hosts int) (*farm, Config) {
	t.Helper()
	f := &farm{t: t, dir: t.TempDir(), ready: map[string]bool{}, calls: map[string][]string{}}
	cfg := Config{
		Version: "v2", InfoHash: hash, Mount: "/m", Dest: "/d", Current: "/current", Dcfs: "dcfs",
		Parallel: 4, Quorum: hosts, Timeout: 10 * time.Second, Straggler: 50 * time.Millisecond,
		CallTimeout: time.Second, HealthTime: 300 * time.Millisecond, Runner: f,
	}
	for i := range hosts {
		name := fmt.Sprintf("h%02d", i)
		cfg.Hosts = append(cfg.Hosts, name)
		for _, v := range []string{"v1", "v2"} {
			if err := os.MkdirAll(filepath.Join(f.dir, name, "d", v), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := activate.Swap(f.link(name), filepath.Join(f.dir, name, "d/v1"), f.options(name, 0)); err != nil {
			t.Fatal(err)
		}
	}
	return f, cfg
}

func (f *farm) link(host string) string { return filepath.Join(f.dir, host, "current") }

func (f *farm) options(host string, epoch int64) activate.Options {
	return activate.Options{State: filepath.Join(f.dir, host, "state"), Epoch: epoch, Allowed: func(string) error { return nil }}
}

func (f *farm) Run(ctx context.Context, host, command string) ([]byte, error) {
	words := strings.Fields(command)
	verb := words[1]
	switch words[0] {
	case "mkdir":
		verb = "mount"
	case "env":
		verb = "health"
	}
	f.mu.Lock()
	f.calls[host] = append(f.calls[host], verb)
	f.mu.Unlock()
	if err := f.failed(ctx, host, verb, false); err != nil {
		return nil, err
	}
	answer, err := f.do(host, verb, words)
	if err != nil {
		return nil, err
	}
	if err := f.failed(ctx, host, verb, true); err != nil {
		return nil, err
	}
	out, err := json.Marshal(answer)
	return append([]byte("Welcome!\n"), out...), err
}

func (f *farm) failed(ctx context.Context, host, verb string, after bool) error {
	if f.fault == nil {
		return nil
	}
	return f.fault(ctx, host, verb, after)
}

func (f *farm) do(host, verb string, words []string) (any, error) {
	epoch := int64(0)
	for i, w := range words {
		if w == "--epoch" {
			fmt.Sscan(words[i+1], &epoch)
		}
	}
	switch verb {
	case "receipt":
		at, err := activate.Inspect(f.link(host), f.options(host, 0))
		f.mu.Lock()
		defer f.mu.Unlock()
		return standing{Complete: f.ready[host], Infohash: hash, Target: at.Target, Epoch: at.Epoch}, err
	case "mount":
		f.mu.Lock()
		defer f.mu.Unlock()
		f.ready[host] = true
		return fetched{hash, f.held[host]}, nil
	case "status":
		return statusAnswer{[]control.Status{{Infohash: hash, Held: f.held[host], Bound: &control.Bound{Kind: "disk", Text: "it is full"}}}}, nil
	case "activate":
		target := filepath.Join(f.dir, host, "d/v2")
		was, err := activate.Swap(f.link(host), target, f.options(host, epoch))
		return swapped{target, was}, err
	case "rollback":
		now, was, err := activate.TakeBack(f.link(host), f.options(host, epoch))
		return swapped{now, was}, err
	}
	return nil, nil
}

// on counts the hosts whose link leads to a version.
func (f *farm) on(version string) (n int) {
	f.t.Helper()
	hosts, err := os.ReadDir(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, h := range hosts {
		target, err := os.Readlink(f.link(h.Name()))
		if err != nil {
			f.t.Fatal(err)
		}
		if filepath.Base(target) == version {
			n++
		}
	}
	return n
}

func (f *farm) want(v1, v2 int) {
	f.t.Helper()
	if a, b := f.on("v1"), f.on("v2"); a != v1 || b != v2 {
		f.t.Errorf("%d hosts are on v1 and %d on v2, want %d and %d", a, b, v1, v2)
	}
}

func TestDeploy(t *testing.T) {
	f, cfg := newFarm(t, 9)
	cfg.Health = "true"
	r, err := Deploy(t.Context(), cfg)
	if err != nil || r.Outcome != "deployed" || r.Counts[Done] != 9 {
		t.Errorf("%+v, %v", r, err)
	}
	if r.Ready.P50 <= 0 || r.Ready.Max < r.Ready.P50 || r.Swapped.Max < r.Ready.P50 {
		t.Errorf("times: %+v %+v", r.Ready, r.Swapped)
	}
	f.want(0, 9)
	// Once more: nobody fetches again.
	f.calls = map[string][]string{}
	if r, err := Deploy(t.Context(), cfg); err != nil || r.Counts[Done] != 9 {
		t.Errorf("again: %+v, %v", r, err)
	}
	for host, calls := range f.calls {
		if strings.Join(calls, " ") != "receipt activate health" {
			t.Errorf("again: %s ran %q", host, calls)
		}
	}
	f.want(0, 9)
}

var errDown = errors.New("host is down")

// TestFaults lets k hosts fail at one step: all end on one release, or the
// report names those that do not.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name        string
		verb        string
		after       bool // carried out, and only the answer is lost
		k, quorum   int
		deployed    bool
		v2          int // hosts that are on v2 afterwards
		state       State
		inState     int
		laterOnSame bool // the fault lasts: it hits the taking back, too
	}{
		{name: "asked", verb: "receipt", k: 1, quorum: 8, state: Failed, inState: 1},
		{name: "asked, quorum", verb: "receipt", k: 1, quorum: 7, deployed: true, v2: 7, state: Failed, inState: 1},
		{name: "fetch", verb: "mount", k: 2, quorum: 7, state: Failed, inState: 2},
		{name: "fetch, quorum", verb: "mount", k: 2, quorum: 6, deployed: true, v2: 6, state: Failed, inState: 2},
		{name: "swap", verb: "activate", k: 1, quorum: 8, state: Back, inState: 8},
		{name: "swap, quorum", verb: "activate", k: 1, quorum: 7, deployed: true, v2: 7, state: Unknown, inState: 1},
		{name: "answer lost", verb: "activate", after: true, k: 3, quorum: 8, state: Back, inState: 8},
		{name: "not healthy", verb: "health", k: 1, quorum: 8, state: Back, inState: 8},
		{name: "cut off", verb: "activate", after: true, k: 2, quorum: 8, v2: 2, state: Unknown, inState: 2, laterOnSame: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, cfg := newFarm(t, 8)
			cfg.Quorum, cfg.Health = c.quorum, "check"
			f.fault = func(_ context.Context, host, verb string, after bool) error {
				hit := host < fmt.Sprintf("h%02d", c.k)
				if hit && (verb == c.verb && after == c.after || c.laterOnSame && verb == "rollback") {
					return errDown
				}
				return nil
			}
			r, err := Deploy(t.Context(), cfg)
			if c.deployed != (err == nil) || err != nil && !errors.Is(err, ErrFailed) {
				t.Errorf("error %v", err)
			}
			if r.Counts[c.state] != c.inState {
				t.Errorf("%d hosts are %s, want %d: %+v", r.Counts[c.state], c.state, c.inState, r.Hosts)
			}
			f.want(8-c.v2, c.v2)
			// Mended, the same call ends well.
			f.fault, cfg.Quorum = nil, 8
			if _, err := Deploy(t.Context(), cfg); err != nil {
				t.Errorf("again: %v", err)
			}
			f.want(0, 8)
		})
	}
}

// TestInterrupted ends the context at each command of a deployment in turn.
func TestInterrupted(t *testing.T) {
	stopped := errors.New("stopped by hand")
	for at := 1; ; at++ {
		f, cfg := newFarm(t, 5)
		cfg.Health, cfg.Parallel = "check", 2
		ctx, cancel := context.WithCancelCause(t.Context())
		var mu sync.Mutex
		n := 0
		f.fault = func(ctx context.Context, _, verb string, after bool) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; n == at {
				cancel(stopped)
			}
			if verb != "rollback" && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return nil
		}
		r, err := Deploy(ctx, cfg)
		cancel(nil)
		if err == nil {
			if n >= at {
				t.Fatalf("stopped at call %d of %d, and it says that all is well", at, n)
			}
			if at < 20 {
				t.Errorf("only %d calls", at)
			}
			f.want(0, 5)
			return
		}
		if !errors.Is(err, stopped) || r.Outcome != "failed" {
			t.Fatalf("call %d: %v %+v", at, err, r)
		}
		f.want(5, 0)
	}
}

// TestOvertaken: a coordinator that was thought dead goes on after another one
// has deployed something newer.
func TestOvertaken(t *testing.T) {
	f, cfg := newFarm(t, 3)
	var once sync.Once
	f.fault = func(_ context.Context, _, verb string, after bool) error {
		if verb != "activate" || after {
			return nil
		}
		once.Do(func() {
			for _, h := range cfg.Hosts { // the other one's
				opt := f.options(h, time.Now().Add(time.Hour).Unix()*epochUnit)
				if _, err := activate.Swap(f.link(h), filepath.Join(f.dir, h, "d/v1"), opt); err != nil {
					t.Error(err)
				}
			}
		})
		return nil
	}
	if r, err := Deploy(t.Context(), cfg); !errors.Is(err, ErrFailed) || r.Counts[Unknown] != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	f.want(3, 0)
}

// TestStraggler: one host hangs for ever; with the quorum ready, the rest swaps.
func TestStraggler(t *testing.T) {
	f, cfg := newFarm(t, 4)
	cfg.Quorum = 3
	f.fault = func(ctx context.Context, host, verb string, after bool) error {
		if host == "h00" && verb == "mount" && !after {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return nil
	}
	r, err := Deploy(t.Context(), cfg)
	if err != nil || r.Counts[Failed] != 1 || r.Counts[Done] != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	f.want(1, 3)
}

// TestEpochs: deployments that begin at once, or know of the same epoch, have
// different ones, greater than all that they know.
func TestEpochs(t *testing.T) {
	for _, known := range []int64{0, 1_795_600_000_000, time.Now().Unix() * epochUnit, time.Now().Add(time.Hour).Unix()*epochUnit + 999_999} {
		seen := map[int64]bool{}
		for range 100 {
			_, cfg := newFarm(t, 1)
			d, err := newDeployment(cfg)
			if err != nil {
				t.Fatal(err)
			}
			d.start = time.Unix(1_800_000_000, 0)
			d.learn(known)
			d.learn(known - 5)
			if seen[d.epoch] = true; d.epoch <= known || d.epoch >= 1<<53 {
				t.Errorf("%d after %d", d.epoch, known)
			}
		}
		if len(seen) < 98 {
			t.Errorf("100 deployments have %d epochs", len(seen))
		}
	}
}

// TestCheck: what cannot be meant is said before anything is done.
func TestCheck(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"--parallel 0":    func(c *Config) { c.Parallel = 0 },
		"--timeout 0s":    func(c *Config) { c.Timeout = 0 },
		"--call-timeout":  func(c *Config) { c.CallTimeout = 0 },
		"--current \"x\"": func(c *Config) { c.Current = "x" },
	} {
		_, cfg := newFarm(t, 1)
		change(&cfg)
		if err := cfg.Check(); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestParseHosts(t *testing.T) {
	got, err := ParseHosts(strings.NewReader("a\n# no\n  deploy@b.example # the second\n\nfd00::1\n"))
	if err != nil || fmt.Sprint(got) != "[a deploy@b.example fd00::1]" {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "# none\n", "a\na\n", "-oProxyCommand=x\n", "a b\n", "a\x01\n", "a\xff\n", strings.Repeat("x", 5000)} {
		if got, err := ParseHosts(strings.NewReader(bad)); !errors.Is(err, ErrConfig) {
			t.Errorf("%.20q: %q, %v", bad, got, err)
		}
	}
}

func TestParseQuorum(t *testing.T) {
	for text, want := range map[string]int{"1": 1, "7": 7, "100%": 7, "50%": 4, "1%": 1, "99%": 7} {
		if q, err := ParseQuorum(text, 7); err != nil || q != want {
			t.Errorf("%s of 7: %d, %v", text, q, err)
		}
	}
	for _, bad := range []string{"", "0", "8", "-1", "0%", "101%", "x", "%", "1.5"} {
		if q, err := ParseQuorum(bad, 7); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %d, %v", bad, q, err)
		}
	}
}

func TestQuote(t *testing.T) {
	if got := quote("dcfs", "a b", "it's", "", "$(x)", "--up=5MiB"); got != `dcfs 'a b' 'it'\''s' '' '$(x)' --up=5MiB` {
		t.Error(got)
	}
}

// TestShell runs real commands, with sh in the place of ssh.
func TestShell(t *testing.T) {
	s := Shell{Words: []string{"sh", "-c", `test "$0" = host || exit 9; eval "$1"`}}
	out, err := s.Run(t.Context(), "host", quote("printf", "%s|", "a b", "it's", "$x", "\n"))
	if err != nil || string(out) != "a b|it's|$x|\n|" {
		t.Errorf("%q, %v", out, err)
	}
	_, err = s.Run(t.Context(), "host", "echo noise >&2; echo 'dcfs: no room' >&2; echo 'try: less' >&2; exit 74")
	if err == nil || !strings.Contains(err.Error(), "dcfs: no room; try: less: exit status 74") {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errDown)
	defer cancel()
	start := time.Now()
	if _, err = s.Run(ctx, "host", "sleep 60"); !errors.Is(err, errDown) || time.Since(start) > 20*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
	out, err = s.Run(t.Context(), "host", "head -c 5000000 /dev/zero; echo end")
	if err != nil || len(out) > 2*maxOutput || !strings.HasSuffix(string(out), "end\n") {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

// TestBound: the formula, and when there is none.
func TestBound(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes int64
		hosts int
		rates Rates
		want  float64
	}{
		{"the origin", 1000, 2, Rates{10, 1000, 1000}, 100},
		{"a host's link", 1000, 2, Rates{1000, 1000, 10}, 100},
		{"all uploads", 1000, 10, Rates{100, 10, 1000}, 50},
		{"a rate is missing", 1000, 10, Rates{100, 0, 1000}, 0},
		{"nobody fetched", 1000, 0, Rates{100, 10, 1000}, 0},
	} {
		if b := boundOf(c.bytes, c.hosts, c.rates); b.Seconds != c.want || (b.Unknown == "") != (c.want > 0) {
			t.Errorf("%s: %+v, want %v", c.name, b, c.want)
		}
	}
}

// TestSlow: the report names who was slow and who was given up, and what they
// waited for, and how much the origin sent.
func TestSlow(t *testing.T) {
	f, cfg := newFarm(t, 4)
	cfg.Quorum, cfg.Straggler, cfg.Bytes = 3, 100*time.Millisecond, 1000
	cfg.Rates = Rates{100, 100, 100}
	var sent int64
	cfg.Sent = func(context.Context) (int64, error) { sent += 1500; return sent, nil }
	f.held = map[string][]control.Held{"h02": {{Kind: "choked", MS: 900}}, "h03": {{Kind: "disk", MS: 5000}}}
	f.fault = func(ctx context.Context, host, verb string, after bool) error {
		if host == "h03" && verb == "mount" {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return nil
	}
	r, err := Deploy(context.Background(), cfg)
	if err != nil || r.Copies == nil || *r.Copies != 1.5 || r.Bound.Seconds != 10 || r.Bound.Hosts != 4 {
		t.Errorf("%v %+v", err, r)
	}
	if len(r.Slow) != 1 || r.Slow[0].Host != "h03" || r.Slow[0].Ready || r.Slow[0].Held[0].Kind != "disk" || r.Slow[0].Now != "disk: it is full" {
		t.Errorf("%+v", r.Slow)
	}
	late := []Host{{Name: "a", State: Done, Ready: 9, fetched: true, held: f.held["h02"]}, {Name: "b", State: Done, Ready: 9}, {Name: "c", State: Done, Ready: 2.1, fetched: true}}
	if s := slow(late, 2); len(s) != 1 || s[0].Host != "a" || s[0].Held[0].Kind != "choked" {
		t.Errorf("%+v", s)
	}
	cfg.Sent = func(context.Context) (int64, error) { return 0, errors.New("no answer") }
	f.fault = nil
	if r, err := Deploy(context.Background(), cfg); err != nil || r.Copies != nil || r.Bound.Unknown != "" && r.Bound.Hosts != 1 {
		t.Errorf("%v %+v", err, r)
	}
}

// TestLastWords: what a host said last, as a person can read it.
func TestLastWords(t *testing.T) {
	const line = `{"schema":1,"progress":{"stage":"mounted","bytes":2048,"bytes_have":1024,"down_rate":512,"bound":"disk"}}`
	for said, want := range map[string]string{
		"hello\ndcfs: it failed\n  try again\n": "dcfs: it failed;   try again",
		"level=INFO\nConnection refused\n":      "Connection refused",
		"level=INFO\n" + line + "\n":            "it was mounted, with 1.0 KiB of 2.0 KiB and 512 B a second, held by disk",
		`{"other":1}`:                           `{"other":1}`,
		"":                                      "",
	} {
		if got := lastWords([]byte(said)); got != want {
			t.Errorf("%q: %q, want %q", said, got, want)
		}
	}
}
