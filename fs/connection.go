package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// Nobody writes here, so that no request is longer than names, and the
	// kernel, which wants room for its largest one, need not be given much.
	maxWrite    = 4096
	requestRoom = maxWrite + 4096
	smallReply  = 1024 + 4096 // room for all replies but those that name a size
	replyHeads  = 256         // of it, for headers

	maxIdle = 2 // readers that wait for a request

	opInit        = 26      // FUSE_INIT of linux/fuse.h
	initMaxWrite  = 16 + 20 // where the answer to INIT has max_write
	opGetXattr    = 22
	opListXattr   = 23
	opRead        = 15
	opReadDir     = 28
	opReadDirPlus = 44

	noteResend = 7 // FUSE_NOTIFY_RESEND (Linux 6.9)
	notePrune  = 9 // FUSE_NOTIFY_PRUNE (FUSE 7.45)
)

// connection speaks the kernel's protocol on one descriptor of /dev/fuse. The
// library's own server cannot begin in the middle, as the successor of a dead
// process has to; its protocol code can.
//
// A reader takes a request and serves it in place; when nobody is left who
// waits for the next one, it first starts another reader.
type connection struct {
	dev   int
	proto *fuse.ProtocolServer
	log   *slog.Logger

	init     []byte // the kernel's INIT, as it came
	settings fuse.InitIn

	idle    atomic.Int32
	readers sync.WaitGroup
	replies replies
}

func newConnection(dev int, raw fuse.RawFileSystem, opt *fuse.MountOptions, log *slog.Logger) *connection {
	opt.ExtraCapabilities |= fuse.CAP_HAS_RESEND
	return &connection{dev: dev, proto: fuse.NewProtocolServer(raw, opt), log: log}
}

// begin reads the kernel's INIT and answers it.
func (c *connection) begin() error {
	in, err := c.read(make([]byte, requestRoom))
	if err != nil {
		return fmt.Errorf("INIT: %w", err)
	}
	out, err := c.negotiate(in)
	if err != nil {
		return err
	}
	_, err = unix.Write(c.dev, out)
	return err
}

// goOn takes over from a process that is dead: it is told the INIT that the
// other answered, and has the kernel send again what the other did not answer.
func (c *connection) goOn(init []byte) error {
	if _, err := c.negotiate(init); err != nil {
		return err
	}
	if err := c.notify(noteResend, nil); err != nil {
		return fmt.Errorf("RESEND: %w; it needs Linux 6.9", err)
	}
	return nil
}

// negotiate has the protocol code learn INIT and returns its answer.
func (c *connection) negotiate(in []byte) ([]byte, error) {
	if len(in) < int(unsafe.Sizeof(fuse.InHeader{}))+16 || binary.NativeEndian.Uint32(in[4:]) != opInit {
		return nil, errors.New("the kernel's first request is not INIT")
	}
	c.init = in
	full := make([]byte, unsafe.Sizeof(fuse.InitIn{})) // older kernels send less
	copy(full, in)
	c.settings = *(*fuse.InitIn)(unsafe.Pointer(&full[0]))
	out := make([]byte, smallReply)
	n, status := c.proto.HandleRequest([][]byte{in}, [][]byte{out})
	if !status.Ok() || n < initMaxWrite+4 || binary.NativeEndian.Uint32(out[4:]) != 0 {
		return nil, fmt.Errorf("INIT of protocol %d.%d is refused: %v", c.settings.Major, c.settings.Minor, status)
	}
	// The library couples the length of READs to that of WRITEs.
	binary.NativeEndian.PutUint32(out[initMaxWrite:], maxWrite)
	return out[:n], nil
}

// serve answers requests until the kernel ends the connection; closed is called
// then, and has to make what is still being answered come to an end.
func (c *connection) serve(closed func()) {
	var once sync.Once
	c.readers.Add(1)
	go c.loop(func() { once.Do(closed) })
	c.readers.Wait()
	unix.Close(c.dev)
}

// loop reads and answers until there is nothing more, or enough others wait.
func (c *connection) loop(closed func()) {
	defer c.readers.Done()
	room := make([]byte, requestRoom)
	for {
		if c.idle.Add(1) > maxIdle {
			c.idle.Add(-1)
			return
		}
		present(room)
		in, err := c.read(room)
		if c.idle.Add(-1) == 0 && err == nil {
			c.readers.Add(1)
			go c.loop(closed)
		}
		if err != nil {
			if !errors.Is(err, unix.ENODEV) { // unmounted
				c.log.Error("reading from the kernel", "cause", err)
			}
			closed()
			return
		}
		c.answer(in)
	}
}

// present writes to every page of b. Into a page that is not there the kernel
// does not copy for a process that is being killed: it has the request fail with
// EIO then, instead of leaving it to the successor.
func present(b []byte) {
	for at := 0; at < len(b); at += os.Getpagesize() {
		b[at] = 0
	}
	b[len(b)-1] = 0
}

// read returns the next request, in room.
func (c *connection) read(room []byte) ([]byte, error) {
	for {
		n, err := unix.Read(c.dev, room)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT):
			continue // ENOENT: whoever asked was killed meanwhile
		case err != nil:
			return nil, err
		case n < int(unsafe.Sizeof(fuse.InHeader{})):
			return nil, fmt.Errorf("a request of %d bytes", n)
		}
		return room[:n], nil
	}
}

// answer serves one request.
func (c *connection) answer(in []byte) {
	out := c.replies.get(replyRoom(in))
	defer c.replies.put(out)
	n, status := c.proto.HandleRequest([][]byte{in}, [][]byte{out})
	if !status.Ok() {
		n = refuse(in, out, status)
	}
	if n == 0 {
		return // FORGET and its like have no answer
	}
	_, err := unix.Write(c.dev, out[:n])
	// ENOENT: whoever asked was killed meanwhile; ENODEV: unmounted.
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		c.log.Error("answering the kernel", "opcode", binary.NativeEndian.Uint32(in[4:]), "cause", err)
	}
}

// replyRoom is how long the answer to a request can be.
func replyRoom(in []byte) int {
	const read, xattr = 40 + 16, 40 // where READ and GETXATTR have their size
	at := 0
	switch binary.NativeEndian.Uint32(in[4:]) {
	case opRead, opReadDir, opReadDirPlus:
		at = read
	case opGetXattr, opListXattr:
		at = xattr
	}
	if at == 0 || len(in) < at+4 {
		return smallReply
	}
	return replyHeads + int(min(binary.NativeEndian.Uint32(in[at:]), maxTransfer))
}

// refuse makes the answer to a request that the protocol code could not read.
func refuse(in, out []byte, status fuse.Status) int {
	binary.NativeEndian.PutUint32(out, 16)
	binary.NativeEndian.PutUint32(out[4:], uint32(-int32(status)))
	copy(out[8:16], in[8:16])
	return 16
}

// prunes says whether the kernel takes prune.
func (c *connection) prunes() bool { return c.settings.SupportsNotify(fuse.NOTIFY_PRUNE) }

// prune asks the kernel to drop nodes that are only cached.
func (c *connection) prune(nodes []uint64) error {
	body := binary.NativeEndian.AppendUint32(nil, uint32(len(nodes)))
	body = append(body, make([]byte, 12)...)
	for _, id := range nodes {
		body = binary.NativeEndian.AppendUint64(body, id)
	}
	return c.notify(notePrune, body)
}

// notify tells the kernel something that it did not ask for.
func (c *connection) notify(code uint32, body []byte) error {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint32(b, code)
	b = binary.NativeEndian.AppendUint64(b, 0)
	_, err := unix.Write(c.dev, append(b, body...))
	return err
}
