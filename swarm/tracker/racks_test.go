package tracker

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// Half of what a host is told of stands in its rack, the rest anywhere.
func TestRackFirst(t *testing.T) {
	const racks, each, want = 20, 10, 12
	s, cfg := newSwarm(new(atomic.Int64)), New(Config{}).cfg
	join := func(i int, rack string) result {
		a := &announce{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10}), uint16(i+1)), left: 1, want: want, rack: rack}
		a.id[0], a.id[1] = byte(i), 1
		res, err := s.announce(a, cfg, time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	for i := range racks * each {
		join(i, string(rune('a'+i%racks)))
	}
	near := func(res result) (n int) {
		for _, c := range res.peers {
			if s.byID[c.id].rack == "a" {
				n++
			}
		}
		return n
	}
	res := join(0, "a")
	if len(res.peers) != want || near(res) < want/2 || near(res) == want {
		t.Errorf("%d peers, %d of them near; want %d and half of them", len(res.peers), near(res), want)
	}
	for i := range each { // all move
		join(i*racks, "z")
	}
	if len(s.racks["a"]) != 0 || len(s.racks["z"]) != each {
		t.Errorf("%d are still in the rack that they left, %d of %d in the other", len(s.racks["a"]), len(s.racks["z"]), each)
	}
	s.expire(time.Unix(2, 0))
	if len(s.racks) != 0 {
		t.Errorf("racks without members are kept: %v", s.racks)
	}
}
