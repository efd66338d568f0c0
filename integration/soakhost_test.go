package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dcfs/integration/compare"
	"dcfs/integration/lab"
)

// victim is a host of the soak: its processes are killed.
type victim struct {
	*node
	s          *soak
	r          *rand.Rand
	mountpoint string
	dest       string
	total      int64 // bytes of the release with its padding, once known
	// cleaning is held while the copy is removed: a reader would keep it in use.
	cleaning sync.RWMutex
}

func (s *soak) victim(name string) *victim {
	v := &victim{node: s.o.newNode(s.lab.Host(name)), s: s, r: s.rng(name)}
	v.mountpoint, v.dest = filepath.Join(v.Mnt(), "soak"), filepath.Join(v.Releases(), "soak")
	must(s.t, os.Mkdir(v.mountpoint, 0o755))
	s.t.Cleanup(func() { v.Unmount(v.mountpoint) })
	v.Shape(lab.Shape{Down: "24mbit"})
	return v
}

// How a life ends.
const (
	killSoon   = iota // in its first second and a half
	killLater         // after a record of progress can have been made
	killAtEnd         // within a moment of its last piece
	killAtName        // between the receipt, the copy's name, the link and the handover
	survive           // not before the copy stands
)

// round brings the release to the host once, through several lives, and takes
// it away again.
func (v *victim) round(ctx context.Context) {
	plan := []int{killSoon, killLater, killAtName}
	if !v.s.short {
		plan = nil
		for range 1 + v.r.IntN(5) {
			plan = append(plan, v.r.IntN(survive))
		}
	}
	var had record
	atEnd := []string{"handover", "handover", "unmount", "keep"}[v.r.IntN(4)]
	for _, how := range append(plan, survive) {
		p := v.daemon("life", "mount", v.s.release.Version, v.mountpoint, "--origin", v.s.o.url(), "--dest", v.dest,
			"--activate", v.current(), "--at-end", atEnd,
			"--linger", "10m", "--cache", "32MiB", "--wait", "2m", "--peer-listen", v.Addr+":7072")
		st, err := v.live(ctx, p, how)
		if err != nil {
			v.t.Errorf("%s: %v\n%s", v.Name, err, p.Tail(40))
			return
		}
		if how == survive {
			v.finished(ctx, p, st, had)
			break
		}
		p.Kill()
		v.s.kills.Add(1)
		v.t.Logf("%s: killed %s in %q, %d of %d bytes here, %d resumed, %d came", v.Name,
			time.Since(v.s.start).Round(time.Millisecond), st.State, st.BytesHave, st.Bytes, st.BytesResumed, st.BytesFetched)
		had = v.killed(ctx, st, had)
	}
	v.clean()
}

func (v *victim) current() string { return filepath.Join(v.Dir, "current") }

// live waits for the instant at which the life is to be killed, or has made the
// copy, and returns its status at that instant.
func (v *victim) live(ctx context.Context, p *lab.Process, how int) (last soakStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	at := map[int]time.Duration{
		killSoon:  between(v.r, 0, 1500*time.Millisecond),
		killLater: between(v.r, 5200*time.Millisecond, 8*time.Second),
		killAtEnd: between(v.r, 0, 80*time.Millisecond), survive: 0,
	}[how]
	if how == killAtName && !v.named() {
		return v.untilNamed(ctx, p)
	}
	start := time.Now()
	err = lab.Poll(ctx, func() (bool, error) {
		if !p.Running() {
			return false, errors.New("the process has ended by itself")
		}
		if st, err := v.ask(ctx, p.PID()); err == nil {
			last = st
		}
		switch how {
		case killAtEnd:
			return stateRank[last.State] >= stateRank["complete"] || last.Bytes > 0 && last.BytesHave > last.Bytes*95/100, nil
		case survive:
			return stateRank[last.State] >= stateRank["lingering"], nil
		}
		return time.Since(start) > at-50*time.Millisecond, nil
	})
	if err != nil {
		return last, err
	}
	if how != survive {
		if how != killAtEnd {
			at -= time.Since(start)
		}
		time.Sleep(max(0, at))
		if st, err := v.ask(ctx, p.PID()); err == nil {
			last = st
		}
	}
	return last, nil
}

// named tells whether a receipt is written: the copy's name comes next.
func (v *victim) named() bool {
	receipts, err := os.ReadDir(filepath.Join(v.State(), "receipts"))
	return err == nil && len(receipts) > 0
}

// untilNamed looks without a pause, for all that follows takes milliseconds.
func (v *victim) untilNamed(ctx context.Context, p *lab.Process) (last soakStatus, err error) {
	for asked := time.Now(); !v.named(); time.Sleep(200 * time.Microsecond) {
		if !p.Running() || ctx.Err() != nil {
			return last, fmt.Errorf("no copy was made: running %t, %w", p.Running(), ctx.Err())
		}
		if time.Since(asked) > 50*time.Millisecond {
			asked = time.Now()
			if st, err := v.ask(ctx, p.PID()); err == nil {
				last = st
			}
		}
	}
	time.Sleep(between(v.r, 0, 12*time.Millisecond))
	return last, nil
}

// soakStatus is what the soak reads of a process's status.
type soakStatus struct {
	status
	BytesClaimed int64 `json:"bytes_claimed"`
	BytesResumed int64 `json:"bytes_resumed"`
}

// ready tells whether the figures of the status are filled in.
func (s soakStatus) ready() bool { return s.PeerListen != "" }

// ask asks a process at its socket: no other process has to start for that, so
// the answer is of the instant.
func (v *victim) ask(ctx context.Context, pid int) (s soakStatus, err error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(v.Run(), fmt.Sprintf("%d.sock", pid)))
	}}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://dcfs/v1/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// killed looks at what a killed process has left, and at what it made of what
// the one before it had left.
func (v *victim) killed(ctx context.Context, st soakStatus, had record) record {
	v.whole(ctx)
	v.total = max(v.total, st.Bytes)
	now := v.record(v.total)
	again := had.missingFrom(now)
	if v.named() { // a receipt, and perhaps the name: which of the two, chance decides
		v.s.count(func(c *tally) { c.named++ })
	}
	if st.ready() { // else it was killed before it had looked

		again = max(again, had.bytes-st.BytesResumed-st.BytesClaimed)
	}
	v.s.count(func(c *tally) {
		c.lives++
		c.refetched += max(0, again)
		c.durable += now.bytes
	})
	if again > 0 {
		v.t.Logf("%s: %d of %d durable bytes came again: %+v", v.Name, again, had.bytes, st)
	}
	return now
}

// finished looks at a life that made the copy, and ends it.
func (v *victim) finished(ctx context.Context, p *lab.Process, st soakStatus, had record) {
	if _, err := os.Lstat(v.dest); err != nil {
		v.t.Errorf("%s: the copy does not stand: %v", v.Name, err)
	}
	v.whole(ctx)
	v.t.Logf("%s: copy %s, %d came", v.Name, time.Since(v.s.start).Round(time.Millisecond), st.BytesFetched)
	again := had.bytes - st.BytesResumed
	v.s.count(func(c *tally) {
		c.lives++
		c.copies++
		c.refetched += max(0, again)
		c.fetched += st.BytesFetched
		c.needed += st.Bytes - had.bytes
	})
	if again > 0 {
		v.t.Logf("%s: %d of %d durable bytes came again: %+v", v.Name, again, had.bytes, st)
	}
	if v.r.IntN(2) == 0 {
		p.Kill()
		return
	}
	stopping, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if code, err := p.Stop(stopping); code != 0 || err != nil {
		v.t.Errorf("%s: SIGTERM after the copy: %d, %v", v.Name, code, err)
	}
}

// whole holds the final name, and the link, to the whole release or nothing.
func (v *victim) whole(ctx context.Context) {
	if _, err := os.Lstat(v.dest); errors.Is(err, os.ErrNotExist) {
		if to, err := os.Readlink(v.current()); err == nil {
			v.t.Errorf("%s: the link leads to %s, where nothing stands", v.Name, to)
		}
		return
	}
	diff, err := compare.Same(ctx, v.s.source, v.dest)
	if err != nil || len(diff) > 0 {
		v.t.Errorf("%s: what stands at %s is not the release: %v, %q", v.Name, v.dest, err, diff)
	}
}

// clean takes the release away, with the product's own command, and looks for
// what is left.
func (v *victim) clean() {
	v.s.tidy.Lock()
	defer v.s.tidy.Unlock()
	v.cleaning.Lock()
	defer v.cleaning.Unlock()
	if err := v.Unmount(v.mountpoint); err != nil {
		v.t.Error(err)
	}
	if err := os.Remove(v.current()); err != nil {
		v.t.Errorf("%s: the link at the end: %v", v.Name, err)
	}
	v.gc("--keep", "0", "--stale-after", "0s")
	for _, dir := range []string{v.Releases(), v.Run(), filepath.Join(v.State(), "receipts"), filepath.Join(v.State(), "metainfo")} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			v.t.Errorf("%s: left in %s: %v, %v", v.Name, dir, left, err)
		}
	}
	if left := v.MountsBelow(v.Dir); len(left) > 0 {
		v.t.Errorf("%s: mounts are left: %v", v.Name, left)
	}
}

// record is what is durable of a release that is not finished.
type record struct {
	pieces []byte // bitfield
	bytes  int64
	length int64 // of a piece
	total  int64 // of the release
}

// record reads what a process has left. The copy, when it stands, is all.
func (v *victim) record(total int64) record {
	r := record{length: v.s.release.PieceLength, total: total}
	n := int(v.s.release.Pieces)
	r.pieces = make([]byte, (n+7)/8)
	if _, err := os.Lstat(v.dest); err == nil {
		for i := range n {
			r.pieces[i/8] |= 0x80 >> (i % 8)
		}
	} else if b, err := os.ReadFile(filepath.Join(v.Releases(), ".soak.dcfs/have")); err == nil {
		// magic, info-hash, length, bitfield, SHA-256 of all that
		const head = 8 + 20 + 8
		body := b[:max(0, len(b)-sha256.Size)]
		sum := sha256.Sum256(body)
		if len(body) < head || !bytes.Equal(sum[:], b[len(body):]) || int(binary.BigEndian.Uint64(body[28:])) != len(r.pieces) {
			v.t.Errorf("%s: the record is damaged after a kill: %x", v.Name, b)
			return r
		}
		r.pieces = body[head:]
	}
	if last := n - 1; last >= 0 && total > 0 {
		r.bytes = r.size(r.pieces)
	}
	return r
}

// size is how many bytes a bitfield's pieces have: the last may be shorter.
func (r record) size(field []byte) (sum int64) {
	for i, b := range field {
		sum += int64(bits.OnesCount8(b)) * r.length
		for j := range 8 {
			if at := (int64(i)*8 + int64(j) + 1) * r.length; b&(0x80>>j) != 0 && at > r.total {
				sum -= at - r.total
			}
		}
	}
	return sum
}

// missingFrom is how many bytes of r's pieces a later record has lost.
func (r record) missingFrom(later record) int64 {
	lost := make([]byte, len(r.pieces))
	for i := range lost {
		lost[i] = r.pieces[i] &^ later.pieces[i]
	}
	return r.size(lost)
}
