package swarm

import (
	"testing"
	"time"
)

func TestStall(t *testing.T) {
	var s stall
	now := time.Now()
	at := func(d time.Duration, useful int64, waiting bool) bool { return s.look(now.Add(d), useful, waiting) }
	for _, c := range []struct {
		at      time.Duration
		useful  int64
		waiting bool
		want    bool
	}{
		{0, 0, true, false},
		{14 * time.Second, 0, true, false},
		{15 * time.Second, 0, true, true},  // too long
		{40 * time.Second, 0, true, false}, // twice the patience now
		{45 * time.Second, 0, true, true},
		{46 * time.Second, 5, true, false}, // something came
		{60 * time.Second, 5, true, false},
		{61 * time.Second, 5, true, true},
		{62 * time.Second, 5, false, false}, // nothing to wait for
		{76 * time.Second, 5, true, false},
		{77 * time.Second, 5, true, true},
	} {
		if got := at(c.at, c.useful, c.waiting); got != c.want {
			t.Errorf("at %v: %v, want %v", c.at, got, c.want)
		}
	}
}
