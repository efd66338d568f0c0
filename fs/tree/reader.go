package tree

import (
	"encoding/binary"
	"fmt"
)

// reader takes values off the columns. After the first error it only returns
// zeros, so that callers may look at err once per column; what they do until
// then is bounded by counts that were checked before.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
		r.b = nil
	}
}

// uint reads a varint of at most limit in its shortest form.
func (r *reader) uint(limit uint64, what string) uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b)
	switch {
	case n <= 0:
		r.fail("%s: no number", what)
	case n > 1 && r.b[n-1] == 0:
		r.fail("%s: a number is longer than it needs to be", what)
	case v > limit:
		r.fail("%s: %d is above %d", what, v, limit)
	}
	if r.err != nil {
		return 0
	}
	r.b = r.b[n:]
	return v
}

// int reads a zigzag varint whose absolute value is at most limit.
func (r *reader) int(limit uint64, what string) int64 {
	v := r.uint(2*limit, what)
	return int64(v>>1) ^ -int64(v&1)
}

// count reads how many things follow, each of at least size bytes: a count
// that the rest cannot hold is refused before anything is allocated for it.
func (r *reader) count(size int, what string) int {
	return int(r.uint(uint64(len(r.b)/size), what))
}

// take returns the next n bytes.
func (r *reader) take(n int, what string) []byte {
	if n > len(r.b) {
		r.fail("%s: %d bytes where %d are left", what, n, len(r.b))
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

// atMost returns n, and fails and returns 0 when it is above limit.
func (r *reader) atMost(limit, n int, what string) int {
	if n > limit {
		r.fail("%d %s; %d can be", n, what, limit)
		return 0
	}
	return n
}
