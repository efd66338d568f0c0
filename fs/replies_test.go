package fs

import "testing"

// An answer has the length that was asked for, and its beginning is zero,
// whatever was in that memory before.
func TestReplies(t *testing.T) {
	var r replies
	for _, n := range []int{smallReply, replyHeads + 4096, replyHeads + 8192, replyHeads + 8193, replyHeads + 128<<10, replyHeads + maxTransfer} {
		seen, again := make(map[*byte]bool), false
		for range 50 {
			b := r.get(n)
			again = again || seen[&b[0]]
			seen[&b[0]] = true
			if len(b) != n {
				t.Fatalf("%d bytes instead of %d", len(b), n)
			}
			for i, v := range b[:min(n, smallReply)] {
				if v != 0 {
					t.Fatalf("of %d bytes, byte %d is %d", n, i, v)
				}
			}
			for i := range b {
				b[i] = 0xff
			}
			r.put(b)
		}
		if !again {
			t.Errorf("%d bytes never came from memory that was there", n)
		}
	}
}
