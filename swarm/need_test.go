package swarm

import (
	"testing"
	"time"

	"dcfs/cache/piece"
)

func TestScarce(t *testing.T) {
	set := func(members ...piece.Index) *piece.Set {
		s := piece.NewSet(4)
		for _, i := range members {
			s.Add(i)
		}
		return s
	}
	seed := holding{has: set(0, 1, 2, 3)}
	for name, c := range map[string]struct {
		all  []holding
		want Need
	}{
		"nobody":                    {nil, Need{Few: 2}},
		"all have everything":       {[]holding{seed, seed}, Need{Few: 2}},
		"one lacks all, alone":      {[]holding{{set(), true}}, Need{1, 4, 2}},
		"one other has them":        {[]holding{seed, {set(0), true}}, Need{1, 3, 2}},
		"two others have them":      {[]holding{seed, seed, {set(0), true}}, Need{Few: 2}},
		"it fetches nothing":        {[]holding{seed, {set(0), false}}, Need{Few: 2}},
		"few have what one lacks":   {[]holding{seed, {set(0, 1, 2), true}, {set(0, 1, 3), true}}, Need{Few: 2}},
		"one copy, of two pieces":   {[]holding{{set(0, 1, 2), true}, {set(0, 1, 3), true}}, Need{2, 2, 2}},
		"two lack the same":         {[]holding{seed, {set(0, 1, 2), true}, {set(0, 1, 2), true}}, Need{2, 1, 2}},
		"one that stopped has some": {[]holding{seed, {set(3), false}, {set(0, 1, 2), true}}, Need{Few: 2}},
	} {
		if got := scarce(c.all, 4, 2); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestNeed: a seed is needed while a peer fetches from it, the last piece
// included, and not by a peer that stands still.
func TestNeed(t *testing.T) {
	for _, trade := range []bool{true, false} {
		rel := newRelease(t, 2<<20, 64<<10)
		seed := newHost(t, rel, true, NodeConfig{Trade: trade}).joinPeers()
		h := newHost(t, rel, false, NodeConfig{Trade: trade, Gate: rated(0, 1<<20)})
		h.joinPeers(seed)
		eventually(t, func() bool { n := seed.swarm.Need(); return n.Peers == 1 && n.Pieces > 0 },
			func() string { return "nobody needs the seed" })
		if n := seed.swarm.needAt(time.Now().Add(fetchingFor / 2)); n.Peers != 1 {
			t.Errorf("trade %v: a peer that fetched half a minute ago does not count: %+v", trade, n)
		}
		h.swarm.Prefetch(rel.all(), piece.None)
		sent := seed.swarm.Stats().Sent
		eventually(t, func() bool { // what is under way comes still
			was := sent
			sent = seed.swarm.Stats().Sent
			time.Sleep(300 * time.Millisecond)
			return seed.swarm.Stats().Sent == was
		}, func() string { return "it goes on" })
		seed.swarm.Need()
		if n := seed.swarm.needAt(time.Now().Add(2 * fetchingFor)); n.Peers != 0 {
			t.Errorf("trade %v: a peer that stands still counts: %+v", trade, n)
		}
		h.swarm.Prefetch(rel.all(), piece.Background)
		h.mustComplete()
		eventually(t, func() bool { return seed.swarm.Need() == Need{Few: fewOthers} },
			func() string { return "a whole peer needs the seed" })
	}
}
