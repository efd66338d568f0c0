package gate

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What goes over a link besides the bytes of a connection, in bytes: the headers
// of Ethernet, IPv4 and TCP with its timestamps for each packet, and how many of
// the connection's bytes a packet holds.
const (
	packetHeaders = 14 + 20 + 32
	packetPayload = 1500 - 20 - 32
	// ackedBytes are received for one acknowledgement, a packet without payload: two
	// packets by the book, more where the card or the kernel joins packets.
	ackedBytes = 4 * packetPayload
)

const (
	// quantumTime is how long the limit takes for what is sent or received at a time,
	// within bounds; others wait for so long.
	quantumTime = 5 * time.Millisecond
	minQuantum  = 2 * packetPayload
	maxQuantum  = 64 << 10
	// arrears is for how long an unused limit may be caught up on: what a burst is,
	// and what the scheduler may be late.
	arrears = 20 * time.Millisecond
	// foreseeable is longer than any queue for a limit: a time farther ahead that
	// others left in a shared file is of another boot, or damage.
	foreseeable = time.Minute
)

// Limit bounds the bytes a second that connections send, or receive, in one
// direction, counted as on the link with the headers of the packets. Whoever comes
// first goes first. It may be shared between processes. A nil Limit does not limit.
// It is safe for concurrent use.
type Limit struct {
	rate float64       // bytes a second
	next *atomic.Int64 // when the link is free again, of the clock
}

// NewLimit returns a limit of a number of bytes a second, nil for 0.
func NewLimit(bytesPerSecond int64) *Limit {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &Limit{rate: float64(bytesPerSecond), next: new(atomic.Int64)}
}

// SharedLimits returns limits that all processes share that name the same
// directory, nil for 0. The state of both is 16 bytes of a file; who dies leaves
// nothing behind in it. Each process waits by its own rate, so all should name the
// same. The directory is made when it is missing.
func SharedLimits(dir string, up, down int64) (*Limit, *Limit, error) {
	if up <= 0 && down <= 0 {
		return nil, nil, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, fmt.Errorf("the limits of this host: %w; choose another directory with --run", err)
	}
	path := filepath.Join(dir, "limits")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("the limits of this host: %w; processes that share them run as one user", err)
	}
	defer f.Close()
	// Whatever was in it: the words are checked at each use.
	if err := f.Truncate(16); err != nil {
		return nil, nil, fmt.Errorf("the limits of this host: %w", err)
	}
	words, err := unix.Mmap(int(f.Fd()), 0, 16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("the limits of this host: %s: %w", path, err)
	}
	word := func(i int) *atomic.Int64 { return (*atomic.Int64)(unsafe.Pointer(&words[8*i])) } // mapped until the process ends
	l := [2]*Limit{}
	for i, rate := range []int64{up, down} {
		if rate > 0 {
			l[i] = &Limit{rate: float64(rate), next: word(i)}
		}
	}
	return l[0], l[1], nil
}

// clock is the same for all processes of a host, and not set by anybody.
func clock() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		panic("no monotonic clock") // Linux has one
	}
	return t.Nano()
}

// reserve takes a number of bytes of the limit, and returns for how long to wait
// until they may go.
func (l *Limit) reserve(bytes int) time.Duration {
	if l == nil || bytes == 0 {
		return 0
	}
	cost := int64(float64(bytes) / l.rate * 1e9)
	for {
		now, next := clock(), l.next.Load()
		start := max(next, now-int64(arrears))
		if start > now+int64(foreseeable) {
			start = now
		}
		if l.next.CompareAndSwap(next, start+cost) {
			return time.Duration(start - now)
		}
	}
}

// Busy reports whether somebody waits for the limit.
func (l *Limit) Busy() bool { return l != nil && l.next.Load() > clock() }

func (l *Limit) quantum() int {
	if l == nil {
		return maxQuantum
	}
	return int(min(max(l.rate*quantumTime.Seconds(), minQuantum), maxQuantum))
}

// onLink is how many bytes of the link n bytes of a connection take.
func onLink(n int) int { return n + (n+packetPayload-1)/packetPayload*packetHeaders }

// acks is how many bytes of the link n received bytes take the other way.
func acks(n int) int { return n * packetHeaders / ackedBytes }
