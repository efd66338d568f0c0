package integration

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// manyPeers names 300,000 peers at which nobody is.
func manyPeers(w http.ResponseWriter, _ *http.Request) {
	const n = 160_000
	list := make([]byte, 0, 6*n)
	for i := range n {
		list = append(list, 10, 88, byte(i>>8), byte(i), byte(i>>16), 1)
	}
	fmt.Fprintf(w, "d8:intervali1e5:peers%d:%se", len(list), list)
}

// hostilePeers listen in the host; each is bad in a way of its own.
func hostilePeers(t *testing.T, h *lab.Host, infoHash [20]byte) (addresses []string) {
	t.Helper()
	hello := func(c net.Conn) error {
		var theirs [68]byte
		if _, err := io.ReadFull(c, theirs[:]); err != nil {
			return err
		}
		head := append([]byte("\x13BitTorrent protocol"), 0, 0, 0, 0, 0, 0x10, 0, 0)
		head = append(append(head, infoHash[:]...), fmt.Appendf(nil, "-EV0000-%012d", os.Getpid())...)
		_, err := c.Write(head)
		return err
	}
	message := func(id byte, body ...byte) []byte {
		return append(append(binary.BigEndian.AppendUint32(nil, uint32(1+len(body))), id), body...)
	}
	for _, behave := range []func(c net.Conn){
		func(c net.Conn) { endless(c, "", "noise") },
		func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, // takes everything and says nothing
		func(c net.Conn) {
			if hello(c) == nil {
				endless(c, "\xff\xff\xff\xff\x07", "x") // a message of 4 GiB
			}
		},
		func(c net.Conn) {
			if hello(c) == nil {
				endless(c, "", string(message(4, 0xff, 0xff, 0xff, 0xff))) // has piece 2^32-1
			}
		},
		func(c net.Conn) {
			if hello(c) == nil { // an extended handshake with metadata of 2^62 bytes
				body := "\x00d1:md11:ut_metadatai1ee13:metadata_sizei4611686018427387904ee"
				endless(c, string(message(20, []byte(body)...)), string(message(20, []byte("\x01d8:msg_typei1e5:piecei9e10:total_sizei1ee")...)))
			}
		},
		func(c net.Conn) { liar(c, hello, message) },
	} {
		ln, err := h.Listen("tcp", h.Addr+":0")
		must(t, err)
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); behave(c) }()
			}
		}()
		addresses = append(addresses, ln.Addr().String())
	}
	return addresses
}

// liar has every piece and gives zeros for what is asked.
func liar(c net.Conn, hello func(net.Conn) error, message func(byte, ...byte) []byte) {
	if hello(c) != nil {
		return
	}
	for i := range uint32(8) {
		c.Write(message(4, binary.BigEndian.AppendUint32(nil, i)...))
	}
	c.Write(message(1))
	for {
		var head [4]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		body := make([]byte, min(binary.BigEndian.Uint32(head[:]), 1<<20))
		if _, err := io.ReadFull(c, body); err != nil {
			return
		}
		if len(body) == 13 && body[0] == 6 { // a request
			length := min(binary.BigEndian.Uint32(body[9:]), 1<<20)
			if _, err := c.Write(message(7, append(body[1:9:9], make([]byte, length)...)...)); err != nil {
				return
			}
		}
	}
}

// TestHostileMessages sends every kind of peer message with the worst in it to
// an origin and to a node that seeds: both live on.
func TestHostileMessages(t *testing.T) {
	lab.Require(t, lab.Root)
	l := lab.New(t, "origin", "evil", "a", "b")
	o := newOrigin(t, l.Host("origin"))
	source := sampleTree(t, 20, 2, 1<<20)
	release := o.publish(source, "v")
	hash := sha1.Sum([]byte(takeApart(t, release.file).info))
	seeder := o.newNode(l.Host("a"))
	p := seeder.daemon("fetch", "fetch", release.Version, filepath.Join(seeder.Releases(), "v"), "--origin", o.url(),
		"--linger", "10m", "--peer-listen", seeder.Addr+":7072")
	seeder.reach(p, release.Version, "lingering", 30*time.Second)
	for _, target := range []string{o.Addr + ":" + peerPort, seeder.Addr + ":7072"} {
		for i, m := range worstMessages() {
			if err := sendMessage(t, l.Host("evil"), target, hash, i, m); err != nil {
				t.Fatalf("message %.60q to %s: %v\n%s%s", m, target, err, o.proc.Tail(30), p.Tail(30))
			}
		}
	}
	if !o.proc.Running() || !p.Running() {
		t.Fatalf("a message ended a process\n%s%s", o.proc.Tail(30), p.Tail(30))
	}
	n := o.newNode(l.Host("b"))
	for name, from := range map[string]string{"origin": o.Addr + ":" + peerPort, "node": seeder.Addr + ":7072"} {
		dest := filepath.Join(n.Releases(), name)
		n.ok("fetch", release.file, dest, "--peer", from, "--linger", "0s")
		equal(t, source, dest)
	}
	stop(t, p)
}

func worstMessages() (all [][]byte) {
	bodies := [][]byte{nil, {0}, bytes.Repeat([]byte{0xff}, 4), bytes.Repeat([]byte{0xff}, 12), make([]byte, 12),
		{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x40, 0}, {0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
		append(bytes.Repeat([]byte{0xff}, 8), make([]byte, 16<<10)...), make([]byte, 1<<17)}
	for id := range byte(26) {
		for _, b := range bodies {
			all = append(all, append([]byte{id}, b...))
		}
	}
	for _, text := range []string{
		"d8:msg_typei0e5:piecei-1ee", "d8:msg_typei0e5:piecei-9223372036854775808ee", "d8:msg_typei0e5:piecei1125899906842624ee",
		"d8:msg_typei0e5:piecei562949953421311ee", "d8:msg_typei1e5:piecei-1e10:total_sizei5eexxxxx", "d8:msg_typei1e5:piecei0e10:total_sizei-5eexxxxx",
		"d8:msg_typei9e5:piecei0ee", "d1:md11:ut_metadatai-1e6:ut_pexi99999ee13:metadata_sizei4611686018427387904ee",
		"d13:metadata_sizei-9223372036854775808ee", "d4:reqqi-1ee", "d4:reqqi9223372036854775807ee", "d1:pi-1ee", "d1:pi99999999999ee",
		"d1:a" + strings.Repeat("l", 120_000), strings.Repeat("d1:a", 30_000), "d5:added7:1234567e", "d5:added6:\x0a\x4d\x00\x01\x00\x017:added.f0:e",
		"d6:yourip1:xe", "d1:v100000:e", "i-0e", "",
	} {
		for id := range byte(6) {
			all = append(all, append([]byte{20, id}, text...))
		}
	}
	return all
}

// sendMessage shakes hands, says that it can do extensions, sends one message
// and waits until the other has read it all, or has hung up. No answer to the
// handshake is an error.
func sendMessage(t *testing.T, h *lab.Host, target string, infoHash [20]byte, i int, m []byte) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := h.Dial(ctx, "tcp", target)
	if err != nil {
		return err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	must(t, c.SetDeadline(deadline))
	hello := append([]byte("\x13BitTorrent protocol"), 0, 0, 0, 0, 0, 0x10, 0, 4)
	hello = append(append(hello, infoHash[:]...), fmt.Appendf(nil, "-EV0000-%012d", i)...)
	if _, err := c.Write(hello); err != nil {
		return err
	}
	var theirs [68]byte
	if _, err := io.ReadFull(c, theirs[:]); err != nil {
		return fmt.Errorf("no handshake: %w", err)
	}
	var messages []byte
	for _, part := range []string{"\x14\x00d1:md11:ut_metadatai1e6:ut_pexi2eee", string(m)} {
		messages = append(binary.BigEndian.AppendUint32(messages, uint32(len(part))), part...)
	}
	if _, err := c.Write(messages); err != nil {
		return nil // it has hung up already
	}
	// What it has to send is read until it sees our end and hangs up.
	if c.(*net.TCPConn).CloseWrite() != nil {
		return nil // it has hung up already
	}
	_, err = io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("it does not hang up: %w", err)
	}
	return nil
}
