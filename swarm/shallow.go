package swarm

import (
	"bytes"
	"errors"
	"strconv"
)

// maxNesting is how deep a tracker's answer or a peer's message may nest; real
// ones need three.
const maxNesting = 8

var errNesting = errors.New("it nests too deep, or is no bencode")

// shallow refuses bencode (BEP 3) that nests deeper than any answer or message
// does; what follows behind the first value does not matter. The
// library's decoder recurses: a mebibyte of opened lists would take it half a
// gigabyte of stack.
func shallow(b []byte) error {
	depth := 0
	for len(b) > 0 {
		n := 1
		switch c := b[0]; {
		case c == 'l' || c == 'd':
			depth++
		case c == 'e':
			depth--
		case c == 'i':
			n = bytes.IndexByte(b, 'e') + 1
		default:
			n = stringEnd(b)
		}
		if depth > maxNesting || depth < 0 || n <= 0 || n > len(b) {
			return errNesting
		}
		if b = b[n:]; depth == 0 {
			return nil
		}
	}
	return errNesting
}

// stringEnd returns where the string that b starts with ends; -1 when it is
// none.
func stringEnd(b []byte) int {
	digits := bytes.IndexByte(b[:min(len(b), 12)], ':')
	if digits < 1 {
		return -1
	}
	n, err := strconv.ParseUint(string(b[:digits]), 10, 32)
	if err != nil {
		return -1
	}
	return digits + 1 + int(n)
}
