package tracker

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// checkSwarm verifies that the swarm's four views of its peers agree.
func checkSwarm(s *swarm) error {
	n := len(s.byID)
	if len(s.byAddr) != n || s.byAge.Len() != n || len(s.seeds)+len(s.leechers) != n {
		return fmt.Errorf("%d by id, %d by address, %d by age, %d seeds, %d leechers",
			n, len(s.byAddr), s.byAge.Len(), len(s.seeds), len(s.leechers))
	}
	for id, p := range s.byID {
		if p.id != id || s.byAddr[p.addr] != p || p.age.Value != p ||
			(*s.side(p))[p.index] != p || p.seed != (p.left == 0) {
			return fmt.Errorf("peer %q is not where it should be", id)
		}
	}
	return nil
}

// The swarm is compared with a plain map under random announces.
func TestSwarmAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var total atomic.Int64
		s, now := newSwarm(&total), newClock()
		cfg := New(Config{Now: now.now}).cfg
		type seen struct {
			addr netip.AddrPort
			at   time.Time
			left int64
		}
		model := map[[20]byte]seen{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now.advance(time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds")) * time.Second)
			a := &announce{
				addr:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{10}), uint16(rapid.IntRange(1, 8).Draw(t, "port"))),
				left:  int64(rapid.IntRange(0, 1).Draw(t, "left")),
				event: event(rapid.IntRange(0, 3).Draw(t, "event")),
				want:  rapid.IntRange(0, 10).Draw(t, "want"),
				rack:  rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "rack"),
			}
			a.id[0] = byte(rapid.IntRange(1, 8).Draw(t, "id"))
			res, err := s.announce(a, cfg, now.t)
			if err != nil {
				t.Fatal(err)
			}
			for id, p := range model {
				if now.t.Sub(p.at) >= cfg.Expiry || (a.event != eventStopped && p.addr == a.addr) {
					delete(model, id)
				}
			}
			delete(model, a.id)
			candidates := 0
			for _, p := range model {
				if a.left != 0 || p.left != 0 {
					candidates++
				}
			}
			if a.event == eventStopped {
				candidates = 0
			} else {
				model[a.id] = seen{a.addr, now.t, a.left}
			}
			if len(res.peers) != min(a.want, candidates) {
				t.Fatalf("%d peers for %d wanted of %d", len(res.peers), a.want, candidates)
			}
			told := map[[20]byte]bool{a.id: true}
			for _, c := range res.peers {
				m, ok := model[c.id]
				if !ok || m.addr != c.addr || told[c.id] || (a.left == 0 && m.left == 0) {
					t.Fatalf("told of %v, known %v", c, m)
				}
				told[c.id] = true
			}
			if err := checkSwarm(s); err != nil || len(s.byID) != len(model) || total.Load() != int64(len(model)) {
				t.Fatalf("%v; %d peers, %d counted, want %d", err, len(s.byID), total.Load(), len(model))
			}
		}
	})
}

// Every other peer must come up equally often, and equally often first. The
// bound is more than eight standard deviations wide.
func TestSampleIsFair(t *testing.T) {
	const peers, want, rounds = 21, 5, 20_000
	s := newSwarm(new(atomic.Int64))
	cfg := New(Config{}).cfg
	var self *peer
	for i := range peers {
		a := &announce{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10}), uint16(i+1)), left: int64(i % 2)}
		a.id[0] = byte(i)
		if _, err := s.announce(a, cfg, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if i == 7 {
			self = s.byID[a.id]
		}
	}
	drawn, first := map[byte]int{}, map[byte]int{}
	for range rounds {
		for i, c := range s.sample(self, want) {
			drawn[c.id[0]]++
			if i == 0 {
				first[c.id[0]]++
			}
		}
	}
	if len(drawn) != peers-1 || drawn[7] != 0 {
		t.Errorf("drawn: %v", drawn)
	}
	for id, n := range drawn {
		if n < 4500 || n > 5500 || first[id] < 740 || first[id] > 1260 {
			t.Errorf("peer %d drawn %d times, want about 5000; first %d times, want about 1000", id, n, first[id])
		}
	}
}

// Announces, scrapes, snapshots and sweeps at once; what is left must agree.
func TestConcurrentUse(t *testing.T) {
	var ticks atomic.Int64 // a clock that runs, so that sweeps come in between
	tr := New(Config{
		Expiry: time.Minute, MaxPeersPerSwarm: 40,
		Now: func() time.Time { return time.Unix(ticks.Add(1), 0) },
	})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				c := peerAt(t, tr, fmt.Sprintf("10.0.%d.%d", g, i%20), g*100+i%20, 1+i%7)
				switch h := hash(byte(i % 3)); i % 10 {
				case 0:
					tr.Snapshot()
				case 1:
					c.get("/scrape?info_hash=" + h)
				case 2:
					c.with("info_hash", h, "event", "stopped").announce()
				default:
					c.with("info_hash", h, "left", fmt.Sprint(i%2)).announce()
				}
			}
		})
	}
	wg.Wait()
	n := 0
	for _, s := range tr.swarms {
		if err := checkSwarm(s); err != nil {
			t.Error(err)
		}
		n += len(s.byID)
	}
	if got := tr.peers.Load(); got != int64(n) {
		t.Errorf("%d peers counted, %d there", got, n)
	}
}

// sink is a ResponseWriter that costs nothing.
type sink struct{ h http.Header }

func (s sink) Header() http.Header         { return s.h }
func (s sink) Write(b []byte) (int, error) { return len(b), nil }
func (s sink) WriteHeader(int)             {}

// BenchmarkAnnounce10k is announces in a swarm of 10,000 peers, through the
// handler and without the HTTP server, each answered with 50 peers.
func BenchmarkAnnounce10k(b *testing.B) {
	const peers = 10_000
	tr := New(Config{})
	requests := make([]*http.Request, peers)
	for i := range requests {
		r := httptest.NewRequest(http.MethodGet, fmt.Sprintf("/announce?info_hash=%s&peer_id=-XX0000-%012d&port=%d&left=%d&compact=1",
			strings.Repeat("%aa", 20), i, 7072+i%100, i%2), nil)
		ip := binary.BigEndian.AppendUint32(nil, 10<<24+uint32(i))
		addr, _ := netip.AddrFromSlice(ip)
		r.RemoteAddr = netip.AddrPortFrom(addr, 40000).String()
		requests[i] = r
		tr.ServeHTTP(sink{http.Header{}}, r)
	}
	if s := tr.Snapshot(); len(s) != 1 || len(s[0].Peers) != peers {
		b.Fatal("the swarm is not whole")
	}
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		w := sink{http.Header{}}
		for pb.Next() {
			tr.ServeHTTP(w, requests[next.Add(1)%peers])
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "announces/s")
}
