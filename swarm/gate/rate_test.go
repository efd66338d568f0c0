package gate

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// flood sends over n connections of a gate with these rates at one end, and
// returns how many bytes a second went over the link, as the rates count them.
func flood(t *testing.T, sender, receiver *Gate, n int, during time.Duration) (perSecond float64, burst int) {
	t.Helper()
	l, err := receiver.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	came, first := 0, 0
	began := time.Now()
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			all.Go(func() {
				for buf := make([]byte, 128<<10); ; {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					mu.Lock()
					came += onLink(n)
					if time.Since(began) < 100*time.Millisecond {
						first = came
					}
					mu.Unlock()
				}
			})
		}
	})
	for range n {
		c, err := sender.Dial(t.Context(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		conns = append(conns, c)
		mu.Unlock()
		all.Go(func() {
			for buf := make([]byte, 1<<20); ; {
				if _, err := c.Write(buf); err != nil {
					return
				}
			}
		})
	}
	time.Sleep(during)
	mu.Lock()
	sum, took := came, time.Since(began)
	for _, c := range conns {
		c.Close()
	}
	mu.Unlock()
	l.Close()
	all.Wait()
	return float64(sum) / took.Seconds(), first
}

func TestLimits(t *testing.T) {
	const rate = 4 << 20
	up := func() *Gate { return &Gate{Rates: Rates{Up: []*Limit{NewLimit(rate)}}} }
	down := func() *Gate { return &Gate{Rates: Rates{Down: []*Limit{NewLimit(rate), nil}}} }
	for name, tc := range map[string]struct {
		sender, receiver *Gate
		conns            int
	}{"up": {up(), &Gate{}, 1}, "up, many": {up(), &Gate{}, 20}, "down": {&Gate{}, down(), 1}, "down, many": {&Gate{}, down(), 20}} {
		got, burst := flood(t, tc.sender, tc.receiver, tc.conns, time.Second)
		if got < 0.93*rate || got > 1.05*rate {
			t.Errorf("%s: %.3f of the limit", name, got/rate)
		}
		if float64(burst) > 0.2*rate { // the first tenth of a second
			t.Errorf("%s: %.3f of a second's bytes at once", name, float64(burst)/rate)
		}
	}
}

// TestSharedLimits: two that name one directory share; what others wrote into the
// file stops nobody.
func TestSharedLimits(t *testing.T) {
	const rate = 4 << 20
	dir := filepath.Join(t.TempDir(), "run")
	var gates []*Gate
	for range 2 {
		up, down, err := SharedLimits(dir, rate, 0)
		if err != nil || down != nil {
			t.Fatal(down, err)
		}
		gates = append(gates, &Gate{Rates: Rates{Up: []*Limit{up}}})
	}
	var sum [2]float64
	var both sync.WaitGroup
	for i, g := range gates {
		both.Go(func() { sum[i], _ = flood(t, g, &Gate{}, 2, time.Second) })
	}
	both.Wait()
	if all := sum[0] + sum[1]; all < 0.93*rate || all > 1.05*rate || sum[0] < 0.3*rate || sum[1] < 0.3*rate {
		t.Errorf("%.3f and %.3f of the limit", sum[0]/rate, sum[1]/rate)
	}
	junk := make([]byte, 16)
	for i := range junk {
		junk[i] = 0x7f
	}
	if err := os.WriteFile(filepath.Join(dir, "limits"), junk, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := flood(t, gates[0], &Gate{}, 1, 300*time.Millisecond); got < 0.8*rate || got > 1.2*rate {
		t.Errorf("with junk in the file: %.3f of the limit", got/rate)
	}
	if _, _, err := SharedLimits(filepath.Join(dir, "limits"), 1, 0); err == nil {
		t.Error("a file is no directory")
	}
	if up, down, err := SharedLimits("/dev/null/x", 0, 0); up != nil || down != nil || err != nil {
		t.Error("nothing to share, and an error", err)
	}
}

// TestCloseEndsAWait for a limit that is far away.
func TestCloseEndsAWait(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := &Gate{Rates: Rates{Up: []*Limit{NewLimit(1)}}}
	c, err := g.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := c.Write(make([]byte, 100)); done <- err }()
	time.Sleep(20 * time.Millisecond)
	go func() { _, err := c.Write(make([]byte, 100)); done <- err }()
	time.Sleep(20 * time.Millisecond)
	c.Close()
	for range 2 {
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Fatal("it goes on waiting")
		}
	}
}
