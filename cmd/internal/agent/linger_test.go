package agent

import (
	"math"
	"strings"
	"testing"
	"time"

	"dcfs/swarm"
)

func TestWindow(t *testing.T) {
	for _, c := range []struct {
		linger, most time.Duration
		want         window
	}{
		{30 * time.Second, -1, window{30 * time.Second, 5 * time.Minute}},
		{0, -1, window{}},
		{30 * time.Second, 0, window{30 * time.Second, 30 * time.Second}},
		{30 * time.Second, time.Second, window{30 * time.Second, 30 * time.Second}},
		{30 * time.Second, time.Hour, window{30 * time.Second, time.Hour}},
		{0, time.Hour, window{0, time.Hour}},
		{math.MaxInt64, -1, window{math.MaxInt64, math.MaxInt64}},
	} {
		cfg := Config{Linger: c.linger, LingerMax: c.most}
		if got := cfg.window(); got != c.want {
			t.Errorf("--linger %s --linger-max %s: %+v, want %+v", c.linger, c.most, got, c.want)
		}
	}
}

func TestSeedOnByNeed(t *testing.T) {
	w := window{30 * time.Second, 5 * time.Minute}
	needed := swarm.Need{Peers: 2, Pieces: 7, Few: 3}
	for name, c := range map[string]struct {
		w          window
		spent      time.Duration
		need       swarm.Need
		look, left time.Duration
		why        string
	}{
		"at first":                      {w, 0, swarm.Need{}, 30 * time.Second, 30 * time.Second, "--linger)"},
		"needed, in any case":           {w, 10 * time.Second, needed, 20 * time.Second, 20 * time.Second, "--linger)"},
		"not needed":                    {w, 30 * time.Second, swarm.Need{Few: 3}, 0, 0, ""},
		"needed":                        {w, 30 * time.Second, needed, time.Second, 270 * time.Second, "2 peers lack 7 pieces that fewer than 3 others have"},
		"one peer, one piece":           {w, time.Minute, swarm.Need{Peers: 1, Pieces: 1, Few: 3}, time.Second, 4 * time.Minute, "1 peer lacks 1 piece that"},
		"needed, near the end":          {w, 5*time.Minute - time.Millisecond, needed, time.Millisecond, time.Millisecond, "--linger-max"},
		"needed, for too long":          {w, 5 * time.Minute, needed, 0, 0, ""},
		"needed, in a fixed window":     {window{time.Second, time.Second}, time.Second, needed, 0, 0, ""},
		"needed, with no window at all": {window{}, 0, needed, 0, 0, ""},
	} {
		got := c.w.judge(c.spent, c.need)
		if got.look != c.look || got.left != c.left || !strings.Contains(got.why, c.why) || (c.why == "") != (got.why == "") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
