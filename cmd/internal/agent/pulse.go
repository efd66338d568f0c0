package agent

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The pulse of a life is felt twice a second, so that whoever asks what bounds
// the transfer is told of the last seconds and not of an instant.
const (
	pulseEvery = 500 * time.Millisecond
	pulseKept  = 7 // three seconds
)

// beat is one look.
type beat struct {
	at        time.Time
	useful    int64         // payload bytes that came so far
	throttled bool          // bytes waited for --down
	backlog   bool          // more is verified and not written than may be
	ran       time.Duration // CPU time of this process so far
	queued    time.Duration // time that its threads waited for a processor so far
}

// pulse keeps the last beats.
type pulse struct {
	mu    sync.Mutex
	beats []beat
}

func (p *pulse) add(b beat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.beats) == pulseKept {
		p.beats = append(p.beats[:0], p.beats[1:]...)
	}
	p.beats = append(p.beats, b)
}

// trend is what the last beats say together.
type trend struct {
	span      time.Duration // 0: too early to say
	rate      int64         // bytes a second
	throttled float64       // share of the looks
	backlog   float64
	cpu       float64 // of a processor that this process used
	queued    float64 // seconds a second that its threads waited for one, in sum
}

func (p *pulse) trend() trend {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.beats) < 2 {
		return trend{}
	}
	first, last := p.beats[0], p.beats[len(p.beats)-1]
	t := trend{span: last.at.Sub(first.at)}
	if t.span <= 0 {
		return trend{}
	}
	secs := t.span.Seconds()
	t.rate = int64(float64(last.useful-first.useful) / secs)
	t.cpu = (last.ran - first.ran).Seconds() / secs
	t.queued = max(0, (last.queued-first.queued).Seconds()/secs) // threads end
	looks := p.beats[1:]
	for _, b := range looks {
		if b.throttled {
			t.throttled += 1 / float64(len(looks))
		}
		if b.backlog {
			t.backlog += 1 / float64(len(looks))
		}
	}
	return t
}

// beatOn feels the pulse until ctx ends.
func (l *life) beatOn(ctx context.Context) error {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			b := beat{
				at: now, useful: l.swarm.Stats().Useful, throttled: l.node.Throttled(),
				backlog: l.store.Stats().Dirty > l.cfg.CacheBytes/4,
			}
			b.ran, b.queued = processorTime()
			l.pulse.add(b)
			if n%judgeEvery == 0 {
				l.judgeRelease()
			}
			if l.cfg.OnBeat != nil {
				l.cfg.OnBeat()
			}
		}
	}
}

// processorTime is how long this process ran, and how long its threads waited
// in a run queue. Of the latter it knows nothing on kernels without schedstat.
func processorTime() (ran, queued time.Duration) {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		ran = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	tasks, err := os.Open("/proc/self/task")
	if err != nil {
		return ran, 0
	}
	defer tasks.Close()
	ids, _ := tasks.Readdirnames(-1)
	for _, id := range ids {
		queued += threadQueued("/proc/self/task/" + id + "/schedstat")
	}
	return ran, queued
}

// threadQueued reads one thread's file, with three system calls: os.ReadFile makes
// twice as many, for each of some fifteen threads twice a second.
func threadQueued(file string) time.Duration {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0 // the thread has ended
	}
	defer unix.Close(fd)
	var text [96]byte // three numbers
	n, err := unix.Read(fd, text[:])
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[:n]))
	if len(fields) < 2 {
		return 0
	}
	ns, _ := strconv.ParseInt(fields[1], 10, 64)
	return time.Duration(ns)
}
