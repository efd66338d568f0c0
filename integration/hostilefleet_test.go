package integration

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// misdeeds are what hostile peers do over and over once they have shaken hands,
// and whether that gets them banned.
var misdeeds = map[string]struct {
	banned bool
	do     func(*villain)
}{
	"garbage": {false, func(v *villain) { endless(v.c, "", "\x00\x00\x00\x05noise") }},
	"stall":   {false, func(v *villain) { _, _ = io.Copy(io.Discard, v.c) }},
	"liar":    {false, func(v *villain) { v.send(14); _, _ = io.Copy(io.Discard, v.c) }}, // has all, gives nothing
	"huge":    {false, func(v *villain) { v.raw("\x7f\xff\xff\xff\x14\x01") }},
	"visits":  {true, func(*villain) {}},
	"wrong":   {true, (*villain).wrongPieces},
	"unasked": {true, func(v *villain) {
		for v.trade(7, 1, 0, make([]byte, 32<<10)) {
		}
	}},
	"malformed": {true, func(v *villain) { v.send(20, v.their, 77, 1, 2); _, _ = io.Copy(io.Discard, v.c) }},
	"cancels": {true, func(v *villain) {
		for v.trade(5, 1, 0, nil) {
		}
	}},
	"wants": { // and acknowledges nothing
		true, func(v *villain) {
			go func() { _, _ = io.Copy(io.Discard, v.c) }()
			for i := uint32(0); v.trade(4, i%v.pieces, 0, nil); i++ {
			}
		}},
	"offers": {true, func(v *villain) {
		for i := uint32(0); v.trade(1, i%v.pieces, 0, nil); i++ {
		}
	}},
	"requests": {false, func(v *villain) { // of stock clients, and reads no answer
		v.send(2)
		for i := uint32(0); v.send(6, words(i%v.pieces, 0, 16<<10)...); i++ {
		}
	}},
}

// villain is one connection of a hostile peer that speaks the extension.
type villain struct {
	c      net.Conn
	pieces uint32
	their  byte // what the other calls dcfs_trade
}

func words(all ...uint32) (out []byte) {
	for _, w := range all {
		out = binary.BigEndian.AppendUint32(out, w)
	}
	return out
}

func (v *villain) raw(s string) bool { _, err := io.WriteString(v.c, s); return err == nil }

// send writes a message; it says whether the other still listens.
func (v *villain) send(id byte, body ...byte) bool {
	return v.raw(string(words(uint32(1+len(body)))) + string(id) + string(body))
}

func (v *villain) trade(kind byte, piece, off uint32, data []byte) bool {
	head := append([]byte{v.their, kind}, words(piece, off)...)
	return v.raw(string(words(uint32(1+len(head)+len(data)))) + "\x14" + string(head) + string(data))
}

// wrongPieces has everything and gives zeros for what is asked.
func (v *villain) wrongPieces() {
	v.send(14) // BEP 6: have all
	for {
		m, err := v.read()
		if err != nil {
			return
		}
		if len(m) < 11 || m[0] != 20 || m[2] != 3 && m[2] != 4 { // a want
			continue
		}
		i := binary.BigEndian.Uint32(m[3:])
		for off := uint32(0); off < 64<<10; off += 32 << 10 {
			v.trade(7, i, off, make([]byte, 32<<10))
		}
	}
}

func (v *villain) read() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(v.c, head[:]); err != nil {
		return nil, err
	}
	m := make([]byte, min(binary.BigEndian.Uint32(head[:]), 1<<20))
	_, err := io.ReadFull(v.c, m)
	return m, err
}

// greet shakes hands, and learns what the other calls the extension.
func (v *villain) greet(hash []byte, name string) error {
	v.raw("\x13BitTorrent protocol\x00\x00\x00\x00\x00\x10\x00\x04" + string(hash) + fmt.Sprintf("-EV0000-%012.12s", name))
	var theirs [68]byte
	if _, err := io.ReadFull(v.c, theirs[:]); err != nil {
		return err
	}
	v.send(20, []byte("\x00d1:md10:dcfs_tradei9eee")...)
	for {
		m, err := v.read()
		if err != nil {
			return err
		}
		if _, rest, ok := strings.Cut(string(m), "10:dcfs_tradei"); ok && m[0] == 20 {
			digits, _, _ := strings.Cut(rest, "e")
			n, err := strconv.Atoi(digits)
			v.their = byte(n)
			return err
		}
	}
}

// misbehave is a process of hostile peers, of one kind and at one address, until
// it is killed: KIND LOCAL INFOHASH PIECES TARGET…
func misbehave(args []string) error {
	hash, err := hex.DecodeString(args[2])
	if err != nil || len(args) < 5 {
		return errors.Join(err, errors.New("want KIND LOCAL INFOHASH PIECES TARGET…"))
	}
	pieces, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(args[1])}, Timeout: 2 * time.Second}
	var all sync.WaitGroup
	for _, target := range args[4:] {
		all.Go(func() {
			pause := 250 * time.Millisecond
			if args[0] == "visits" {
				pause = 2 * time.Millisecond
			}
			for {
				if c, err := dialer.Dial("tcp", target); err == nil {
					v := &villain{c: c, pieces: uint32(pieces)}
					if args[0] == "visits" || v.greet(hash, args[0]+args[1]) == nil {
						misdeeds[args[0]].do(v)
					}
					c.Close()
				}
				time.Sleep(pause)
			}
		})
	}
	all.Wait()
	return nil
}

// TestHostileFleet: eight hosts get the release among two hostile peers of each
// kind, at the origin and at each of them, and the memory of no process grows
// beyond a bound. Who breaks the rules is banned, and only those.
func TestHostileFleet(t *testing.T) {
	lab.Require(t, lab.Root)
	names := []string{"origin", "evil"}
	for k := range 8 {
		names = append(names, fmt.Sprintf("h%d", k))
	}
	l := lab.New(t, names...)
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 10, 4, 2<<20)
	release := o.publish(source, "v")
	targets := []string{o.Addr + ":" + peerPort}
	var hosts []*node
	for _, name := range names[2:] {
		hosts = append(hosts, o.newNode(l.Host(name)))
		targets = append(targets, l.Host(name).Addr+":7072")
	}
	evil, kindOf := l.Host("evil"), map[string]string{}
	var crowd []*lab.Process
	self, err := os.Executable()
	must(t, err)
	for k, kind := range slices.Sorted(func(yield func(string) bool) {
		for kind := range misdeeds {
			if !yield(kind) {
				return
			}
		}
	}) {
		for twice := range 2 {
			ip := fmt.Sprintf("10.77.9.%d", 2*k+twice+1)
			kindOf[ip] = kind
			if out, err := evil.Command(t.Context(), "ip", "addr", "add", ip+"/16", "dev", "eth0").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			crowd = append(crowd, evil.Start(kind+strconv.Itoa(twice), func(c *exec.Cmd) { c.Env = append(os.Environ(), roleEnv+"=misbehave") },
				self, append([]string{kind, ip, release.Infohash, fmt.Sprint(release.Pieces)}, targets...)...))
		}
	}
	var procs []*lab.Process
	for _, n := range hosts {
		n.Shape(lab.Shape{Up: "40mbit", Down: "40mbit"})
		procs = append(procs, n.daemon("fetch", "fetch", release.Version, filepath.Join(n.Releases(), "v"), "--origin", o.url(),
			"--linger", "10m", "--peer-listen", n.Addr+":7072", "--cache", "64MiB"))
	}
	began := time.Now()
	for i, n := range hosts {
		n.reach(procs[i], "v", "lingering", 2*time.Minute)
	}
	t.Logf("all have it after %s", time.Since(began).Round(time.Second/10))
	seen := map[string]bool{}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = lab.Poll(ctx, func() (bool, error) {
		for _, p := range append(slices.Clone(procs), o.proc) {
			text, err := os.ReadFile(p.Stderr)
			must(t, err)
			for line := range strings.SplitSeq(string(text), "\n") {
				if _, rest, ok := strings.Cut(line, "address is banned"); ok {
					_, rest, _ = strings.Cut(rest, "peer=")
					ip, _, _ := strings.Cut(rest, " ")
					if kindOf[ip] == "" {
						return false, fmt.Errorf("%s bans an honest peer: %s", p.Label, line)
					}
					seen[kindOf[ip]] = true
				}
			}
		}
		for kind, m := range misdeeds {
			if m.banned && !seen[kind] {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		t.Errorf("banned are %v: %v", seen, err)
	}
	t.Logf("all kinds are banned that shall be after %s", time.Since(began).Round(time.Second/10))
	for _, p := range crowd {
		p.Kill()
	}
	for i, p := range append(slices.Clone(procs), o.proc) {
		if rss := residentMiB(t, p.PID()); rss > 400 {
			t.Errorf("%s takes %d MiB", p.Label, rss)
		} else {
			t.Logf("%s: %d MiB", p.Label, rss)
		}
		if i < len(hosts) {
			equal(t, source, filepath.Join(hosts[i].Releases(), "v"))
		}
	}
	if s := hosts[0].status("v"); s.Banned == 0 {
		t.Errorf("the status counts no bans: %+v", s)
	}
}

// residentMiB is the most memory that a process had.
func residentMiB(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	must(t, err)
	return kb >> 10
}
