package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"dcfs/cmd/internal/control"
)

// TestJudge: each kind of fault alone, and pairs of them, where the one that
// would remain after the other was mended has to be named.
func TestJudge(t *testing.T) {
	now := time.Now()
	long, short := now.Add(-time.Minute), now.Add(-100*time.Millisecond)
	asked := func(since time.Time) control.Link {
		return control.Link{Addr: "10.0.0.1:7072", Holds: 3, Asked: 8, Since: &since, Sent: &since}
	}
	busy := asked(short)
	empty := control.Link{Addr: "10.0.0.2:7072"}
	choking := control.Link{Addr: "10.0.0.3:7072", Holds: 3, Choking: true}
	full := errors.New("no space left on device")
	for _, tc := range []struct {
		name string
		f    facts
		kind string
		say  string
	}{
		{"all here", facts{joined: true}, control.BoundNone, ""},
		{"not joined", facts{missing: 3}, control.BoundStart, ""},
		{"nobody", facts{missing: 3, joined: true, joinedAt: long, trackers: map[string]error{"http://o": errors.New("refused")}},
			control.BoundNoPeers, "http://o does not answer: refused"},
		{"nobody has it", facts{missing: 3, joined: true, links: []control.Link{empty}}, control.BoundNobody, empty.Addr},
		{"choked", facts{missing: 3, joined: true, links: []control.Link{empty, choking}}, control.BoundChoked, choking.Addr},
		{"one chokes, one sends", facts{missing: 3, joined: true, links: []control.Link{choking, busy}}, control.BoundNetwork, "2 peers"},
		{"disk", facts{missing: 3, joined: true, disk: full, diskBad: long, links: []control.Link{busy}}, control.BoundDisk, "no space"},
		{"disk and nobody", facts{missing: 3, joined: true, disk: full, diskBad: long}, control.BoundDisk, "1m0s"},
		{"slow disk", facts{missing: 3, joined: true, links: []control.Link{busy}, trend: trend{backlog: 0.9}}, control.BoundDisk, "slower"},
		{"limit", facts{missing: 3, joined: true, links: []control.Link{busy}, downCap: 1 << 20, trend: trend{throttled: 0.8}},
			control.BoundDownCap, "1.0 MiB"},
		{"a limit that is not reached", facts{missing: 3, joined: true, links: []control.Link{busy}, downCap: 1 << 20,
			trend: trend{throttled: 0.2}}, control.BoundNetwork, ""},
		{"silent", facts{missing: 3, joined: true, links: []control.Link{asked(long)}}, control.BoundSilent, "1m0s"},
		{"one is silent, one sends", facts{missing: 3, joined: true, links: []control.Link{asked(long), busy}}, control.BoundNetwork, ""},
		{"CPU used up", facts{missing: 3, joined: true, links: []control.Link{busy}, trend: trend{cpu: 1e6}}, control.BoundCPU, ""},
		{"waits for the CPU", facts{missing: 3, joined: true, links: []control.Link{busy}, trend: trend{cpu: 0.1, queued: 0.9}},
			control.BoundCPU, "0.9 s"},
		{"waits less than it runs", facts{missing: 3, joined: true, links: []control.Link{busy},
			trend: trend{cpu: 0.5, queued: 0.4}}, control.BoundNetwork, ""},
		{"web seed", facts{missing: 3, joined: true, web: short, trend: trend{rate: 1 << 20}}, control.BoundWebSeed, "1.0 MiB"},
		{"web seed and a limit", facts{missing: 3, joined: true, web: short, downCap: 1 << 20, trend: trend{throttled: 0.8}}, control.BoundDownCap, ""},
		{"a web seed of long ago", facts{missing: 3, joined: true, web: long, links: []control.Link{busy}}, control.BoundNetwork, ""},
		{"behind others", facts{missing: 3, joined: true, links: []control.Link{{Addr: "a", Holds: 1}}}, control.BoundNetwork, "come first"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.f.now = now
			got := judge(tc.f)
			if got.Kind != tc.kind || got.Text == "" || !strings.Contains(got.Text, tc.say) {
				t.Errorf("got %s: %q, want %s with %q", got.Kind, got.Text, tc.kind, tc.say)
			}
		})
	}
}

// TestTrend: shares and rates over what is kept, and nothing from one beat.
func TestTrend(t *testing.T) {
	var p pulse
	start := time.Now()
	if got := p.trend(); got != (trend{}) {
		t.Errorf("of nothing: %+v", got)
	}
	for i := range 2 * pulseKept {
		p.add(beat{at: start.Add(time.Duration(i) * time.Second), useful: int64(i) * 1000, throttled: i%2 == 0,
			ran: time.Duration(i) * time.Second / 2, queued: time.Duration(i) * time.Second / 4})
	}
	got := p.trend()
	if got.span != (pulseKept-1)*time.Second || got.rate != 1000 || got.cpu != 0.5 || got.queued != 0.25 || got.backlog != 0 ||
		got.throttled < 0.4 || got.throttled > 0.6 {
		t.Errorf("%+v", got)
	}
}

// TestSelectPieces: a bounded list keeps what matters, in the file's order.
func TestSelectPieces(t *testing.T) {
	n := 3 * control.MaxWhyPieces
	all := make([]control.Piece, n)
	for i := range all {
		all[i] = control.Piece{Piece: i, State: "verified"}
	}
	all[n-1] = control.Piece{Piece: n - 1, State: "absent", Readers: 1}
	all[n-2] = control.Piece{Piece: n - 2, State: "absent"}
	kept, left := selectPieces(all)
	if len(kept) != control.MaxWhyPieces || left != n-len(kept) {
		t.Fatalf("kept %d, left out %d", len(kept), left)
	}
	if a, b := kept[len(kept)-1], kept[len(kept)-2]; a.Readers != 1 || b.State != "absent" || kept[0].Piece != 0 {
		t.Errorf("the last two are %+v, %+v", b, a)
	}
	if same, left := selectPieces(all[:5]); len(same) != 5 || left != 0 {
		t.Errorf("a short list became %d and %d", len(same), left)
	}
}
