package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// TestSoak kills the hosts of a live swarm with SIGKILL at random instants and
// starts them again, while programs read their mounts all the time. It holds
// the product to this:
//
//   - no byte that is read, from a mount or from the copy, is another than the
//     source's;
//   - at the final name stands nothing, or the whole release;
//   - at the end every host's copy equals the source, and nothing is left;
//   - what was durable when a process was killed is not fetched again, but for
//     less than 1 %.
//
// The last is counted like this. After a kill, the durable pieces are those that
// the record of the stage (PARENT/.DEST/have) names, or all when the copy stands.
// The next life says in its status how many bytes of them it has hashed and
// found right (bytes_resumed) and how many it has yet to hash (bytes_claimed);
// what is missing from the sum has come, or will come, over the network again.
// It is asked for right before the next kill, and when the copy stands. Pieces
// that the record after the next kill does not name any more count, too.
//
// SOAK is the number of kills; without it a short slice is run. SOAK_SEED
// repeats a run as far as the machine's timing lets it.
func TestSoak(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE, lab.Tool("rsync"))
	s := newSoak(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var victims, readers sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		v := s.victim(name)
		for range 2 {
			r := s.reader(v)
			readers.Go(func() { r.run(ctx) })
		}
		victims.Go(func() {
			for first := true; (first || !s.short && s.goesOn()) && !t.Failed(); first = false {
				v.round(ctx)
			}
		})
	}
	done := make(chan struct{})
	go func() { victims.Wait(); close(done) }()
	s.killOrigin(done)
	cancel()
	readers.Wait()
	s.report()
}

// soak is what the hosts of one run share.
type soak struct {
	t       *testing.T
	lab     *lab.Lab
	o       *origin
	source  string
	release published
	content map[string][]byte // of the source's files, by path
	start   time.Time
	seed    uint64
	short   bool
	target  int64
	kills   atomic.Int64
	tidy    sync.Mutex // held while a host's mount is taken away: the others' gc looks at all mounts

	mu        sync.Mutex
	sum       tally
	originDie int
	seen      map[string]int // outcomes of reads
}

// tally is what was counted over all lives; bytes.
type tally struct {
	lives, copies      int
	named              int   // kills after a receipt was written
	durable, refetched int64 // as TestSoak says
	fetched, needed    int64 // of lives that came to the end: what came, and what was missing at their start
}

const shortSoak = 9 // kills in a run of `make test`

func newSoak(t *testing.T) *soak {
	t.Helper()
	s := &soak{t: t, target: shortSoak, short: true, seed: uint64(time.Now().UnixNano()), seen: map[string]int{}}
	if text := os.Getenv("SOAK"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			t.Fatalf("SOAK=%q is no number of kills", text)
		}
		s.target, s.short = n, false
	}
	if text := os.Getenv("SOAK_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		must(t, err)
		s.seed = n
	}
	t.Logf("seed: SOAK_SEED=%d; %d kills", s.seed, s.target)
	s.lab = lab.New(t, "origin", "a", "b", "c")
	s.o = newOrigin(t, s.lab.Host("origin"))
	s.source = sampleTree(t, 60, 6, 3<<20)
	s.release = s.o.publish(s.source, "app/soak")
	s.content = fileContents(t, s.source)
	// Slow enough that a copy takes longer than the interval of the records.
	s.o.Shape(lab.Shape{Up: "60mbit"})
	s.start = time.Now()
	return s
}

// fileContents reads all regular files of a tree.
func fileContents(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		all[strings.TrimPrefix(path, dir+"/")], err = os.ReadFile(path)
		return err
	}))
	return all
}

// goesOn tells whether more kills are wanted.
func (s *soak) goesOn() bool { return s.kills.Load() < s.target }

// rng is the source of a part's decisions, apart from those of the others.
func (s *soak) rng(part string) *rand.Rand {
	var n uint64
	for _, c := range part {
		n = n*131 + uint64(c)
	}
	return rand.New(rand.NewPCG(s.seed, n))
}

func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)))
}

// killOrigin kills the origin now and then, until the hosts are done.
func (s *soak) killOrigin(done <-chan struct{}) {
	r := s.rng("origin")
	wait := between(r, 2*time.Second, 4*time.Second)
	for {
		select {
		case <-done:
			return
		case <-time.After(wait):
		}
		s.o.proc.Kill()
		s.o.start()
		s.originDie++
		wait = between(r, 20*time.Second, 60*time.Second)
	}
}

// count adds up what a life showed.
func (s *soak) count(add func(*tally)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add(&s.sum)
}

// report prints the run and judges the sums.
func (s *soak) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, kills := s.sum, s.kills.Load()
	percent := func(part, whole int64) string {
		return fmt.Sprintf("%.3f %%", 100*float64(part)/float64(max(whole, 1)))
	}
	s.t.Logf("%d kills of hosts, %d of them with a receipt written, %d of the origin; %d lives, %d copies",
		kills, c.named, s.originDie, c.lives, c.copies)
	s.t.Logf("durable at the kills: %d bytes; of these fetched again: %d, %s", c.durable, c.refetched, percent(c.refetched, c.durable))
	s.t.Logf("lives that made a copy: %d bytes were missing, %d came, %s more", c.needed, c.fetched, percent(c.fetched-c.needed, c.needed))
	s.t.Logf("reads: %v", s.seen)
	if c.durable < s.release.Bytes/4 {
		s.t.Errorf("only %d bytes were durable at a kill: the run shows nothing", c.durable)
	}
	if 100*c.refetched >= c.durable && c.durable > 0 {
		s.t.Errorf("%d of %d durable bytes came again, want less than 1 %%", c.refetched, c.durable)
	}
	if kills < s.target || s.seen["mount: right"] == 0 || s.seen["copy: right"] == 0 {
		s.t.Errorf("%d of %d kills, reads %v: the run shows nothing", kills, s.target, s.seen)
	}
}
