package fs

import (
	"math/bits"
	"sync"
)

// replies keeps the memory of answers for the next ones, by powers of two: a
// walk of half a million files asks for a large answer per directory, and fresh
// memory for each makes the heap grow far beyond what is alive.
type replies [replyClasses]sync.Pool // of *[]byte, each of 1<<power bytes and replyHeads

const (
	leastReply   = 13 // 8 KiB, more than smallReply
	largestReply = 20 // maxTransfer
	replyClasses = largestReply - leastReply + 1
)

// get returns n bytes, of which the first smallReply are zero: the protocol
// code fills those in field by field, and a longer answer from end to end.
// n is at most maxTransfer and replyHeads.
func (r *replies) get(n int) []byte {
	power := max(bits.Len(uint(max(n-replyHeads, 1)-1)), leastReply)
	b, _ := r[power-leastReply].Get().(*[]byte)
	if b == nil {
		return make([]byte, 1<<power+replyHeads)[:n]
	}
	out := (*b)[:n]
	clear(out[:min(n, smallReply)])
	return out
}

// put takes back what get returned; nobody may look at it any more.
func (r *replies) put(b []byte) {
	power := bits.Len(uint(cap(b)-replyHeads)) - 1 // the allocator rounds up, but not as far as the next power
	b = b[:1<<power+replyHeads]
	r[power-leastReply].Put(&b)
}
