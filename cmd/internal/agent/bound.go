package agent

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"dcfs/cmd/internal/control"
)

// silence is how long peers may send nothing before they are what is waited
// for.
const silence = 2 * time.Second

// webLately is how long after a piece of a web seed that is where things come
// from.
const webLately = 3 * time.Second

// facts is what is known when somebody asks what bounds the transfer of a file.
type facts struct {
	now      time.Time
	missing  int // pieces of the file that are not here
	joined   bool
	joinedAt time.Time
	disk     error
	diskBad  time.Time
	dest     string
	links    []control.Link // Holds counts the missing pieces
	known    int            // peers known, connected or not
	trackers map[string]error
	downCap  int64 // bytes a second; 0 for none
	trend    trend
	web      time.Time // when a piece came from a web seed last
}

// judge names what bounds a transfer. The order is that of what would remain:
// a disk that refuses bounds it whatever the peers do, a peer that nobody can
// talk to bounds it whatever the processor does.
func judge(f facts) control.Bound {
	for _, test := range []func(facts) (control.Bound, bool){
		boundNothing, boundDisk, boundWebSeed, boundPeers, boundChoked, boundCap, boundSilent, boundBacklog, boundCPU,
	} {
		if b, ok := test(f); ok {
			return b
		}
	}
	return control.Bound{Kind: control.BoundNetwork, Text: fmt.Sprintf(
		"%s a second come from %s: that is what they and the network give%s",
		humanize.IBytes(uint64(f.trend.rate)), count(len(f.links), "peer"), queuedBehind(f))}
}

// queuedBehind says so when nobody was asked for the file yet.
func queuedBehind(f facts) string {
	for _, l := range f.links {
		if l.Asked > 0 && l.Holds > 0 {
			return ""
		}
	}
	return "; other files of the release come first, a read of this one would go ahead of them"
}

func boundNothing(f facts) (control.Bound, bool) {
	if f.missing == 0 {
		return control.Bound{Kind: control.BoundNone, Text: "every piece of the file is here"}, true
	}
	if !f.joined {
		return control.Bound{Kind: control.BoundStart, Text: "the process has not joined the swarm yet"}, true
	}
	return control.Bound{}, false
}

func boundDisk(f facts) (control.Bound, bool) {
	if f.disk == nil {
		return control.Bound{}, false
	}
	return control.Bound{
		Kind: control.BoundDisk, Since: &f.diskBad,
		Text: fmt.Sprintf("the disk has refused pieces for %s: %v", lasting(f.now, f.diskBad), f.disk),
		Try:  "make room below " + f.dest + ", or look for the disk's errors with dmesg",
	}, true
}

// boundWebSeed: what is missing comes by HTTP.
func boundWebSeed(f facts) (control.Bound, bool) {
	if f.web.IsZero() || f.now.Sub(f.web) > webLately {
		return control.Bound{}, false
	}
	if b, ok := boundCap(f); ok {
		return b, true
	}
	return control.Bound{
		Kind: control.BoundWebSeed,
		Text: fmt.Sprintf("no peer serves what is missing; %s a second come from a web seed", humanize.IBytes(uint64(f.trend.rate))),
		Try:  "that is a fallback: start the origin's peer port, or a host that has the whole release, or open the way to them",
	}, true
}

func boundPeers(f facts) (control.Bound, bool) {
	if len(f.links) == 0 {
		b := control.Bound{
			Kind: control.BoundNoPeers, Since: &f.joinedAt,
			Text: fmt.Sprintf("no peer is connected; %s known", count(f.known, "is", "are")),
			Try:  "is the origin running, and are its ports 7070 and 7071 reachable? --peer HOST:PORT names one",
		}
		for tracker, err := range f.trackers {
			b.Text += fmt.Sprintf("; the tracker %s does not answer: %v", tracker, err)
		}
		return b, true
	}
	if slices.ContainsFunc(f.links, holds) {
		return control.Bound{}, false
	}
	return control.Bound{
		Kind: control.BoundNobody,
		Text: fmt.Sprintf("%s connected (%s), and none has a missing piece of the file",
			count(len(f.links), "peer is", "peers are"), names(f.links)),
		Try: "start the origin, or a host that has the whole release, again",
	}, true
}

func boundChoked(f facts) (control.Bound, bool) {
	var choking []control.Link
	for _, l := range f.links {
		switch {
		case l.Holds == 0:
		case !l.Choking:
			return control.Bound{}, false
		default:
			choking = append(choking, l)
		}
	}
	return control.Bound{
		Kind: control.BoundChoked,
		Text: fmt.Sprintf("%s have what is missing and take no requests (choked)", names(choking)),
		Try:  "they serve others now; more hosts that have the release, or a higher --max-peers there, help",
	}, true
}

func boundCap(f facts) (control.Bound, bool) {
	if f.downCap <= 0 || f.trend.throttled <= 0.5 {
		return control.Bound{}, false
	}
	return control.Bound{
		Kind: control.BoundDownCap,
		Text: fmt.Sprintf("--down allows %s a second, and %s a second come",
			humanize.IBytes(uint64(f.downCap)), humanize.IBytes(uint64(f.trend.rate))),
		Try: "start again with a higher --down; what has come stays",
	}, true
}

// boundSilent: of the peers that were asked, none has sent anything for a while.
func boundSilent(f facts) (control.Bound, bool) {
	var silent []control.Link
	var since time.Time
	for _, l := range f.links {
		if l.Asked == 0 || l.Since == nil {
			continue
		}
		last := *l.Since
		if l.Sent != nil && l.Sent.After(last) {
			last = *l.Sent
		}
		if f.now.Sub(last) < silence {
			return control.Bound{}, false
		}
		if since.IsZero() || last.After(since) {
			since = last
		}
		silent = append(silent, l)
	}
	if len(silent) == 0 {
		return control.Bound{}, false
	}
	return control.Bound{
		Kind: control.BoundSilent, Since: &since,
		Text: fmt.Sprintf("%s was asked and has sent nothing for %s", names(silent), lasting(f.now, since)),
		Try:  "look at that host and the network between; connections that stay silent are opened anew by themselves",
	}, true
}

// boundBacklog: pieces come faster than the disk takes them.
func boundBacklog(f facts) (control.Bound, bool) {
	if f.trend.backlog <= 0.5 {
		return control.Bound{}, false
	}
	return control.Bound{
		Kind: control.BoundDisk,
		Text: "the disk takes pieces slower than they come",
		Try:  "a faster disk, or a larger --cache for a release that is little larger than it",
	}, true
}

// boundCPU: the processors that this process may use are used up by it, or its
// threads wait for one longer than they run.
func boundCPU(f facts) (control.Bound, bool) {
	may := float64(runtime.GOMAXPROCS(0))
	used, queued := f.trend.cpu/may, f.trend.queued
	if used < 0.85 && (queued < 0.3 || queued < f.trend.cpu) {
		return control.Bound{}, false
	}
	return control.Bound{
		Kind: control.BoundCPU,
		Text: fmt.Sprintf("this process ran %.0f%% of the time on %s, and its threads waited for one %.1f s in every second",
			f.trend.cpu*100, count(int(may), "processor"), queued),
		Try: "look with top at what else runs; raise the process's CPU limit or weight",
	}, true
}

func holds(l control.Link) bool { return l.Holds > 0 }

// names lists the addresses of some peers.
func names(links []control.Link) string {
	const most = 4
	var out []string
	for i, l := range links {
		if i == most {
			out = append(out, fmt.Sprintf("%d more", len(links)-most))
			break
		}
		out = append(out, l.Addr)
	}
	return strings.Join(out, ", ")
}

// count puts a number before a noun; plural is the noun with an s by default.
func count(n int, one string, plural ...string) string {
	many := one + "s"
	if len(plural) > 0 {
		many = plural[0]
	}
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func lasting(now, since time.Time) time.Duration {
	return max(0, now.Sub(since)).Round(100 * time.Millisecond)
}
