package catalog

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"strconv"
)

var errNoInfo = errors.New("it is not a dictionary with an info dictionary (BEP 3)")

// infohash returns the SHA-1 of the info dictionary's bytes in hex. It walks
// the bencoding only as far as it must.
func infohash(metainfo []byte) (string, error) {
	if len(metainfo) == 0 || metainfo[0] != 'd' {
		return "", errNoInfo
	}
	for rest := metainfo[1:]; len(rest) > 0 && rest[0] != 'e'; {
		n := valueLen(rest)
		if n <= 0 {
			return "", errNoInfo
		}
		key, value := rest[:n], rest[n:]
		if n = valueLen(value); n <= 0 {
			return "", errNoInfo
		}
		if string(key) == "4:info" && value[0] == 'd' {
			sum := sha1.Sum(value[:n])
			return hex.EncodeToString(sum[:]), nil
		}
		rest = value[n:]
	}
	return "", errNoInfo
}

// valueLen returns the length of the bencoded value at the start of b, and 0
// when there is none. It does not recurse: hostile input may nest deeply.
func valueLen(b []byte) int {
	depth, at := 0, 0
	for {
		n, step := tokenLen(b[at:])
		if depth += step; n == 0 || depth < 0 {
			return 0
		}
		if at += n; depth == 0 {
			return at
		}
	}
}

// tokenLen returns the length of one token, 0 for none, and by how much it
// changes the depth.
func tokenLen(b []byte) (n, step int) {
	if len(b) == 0 {
		return 0, 0
	}
	switch c := b[0]; {
	case c == 'd', c == 'l':
		return 1, 1
	case c == 'e':
		return 1, -1
	case c == 'i':
		return bytes.IndexByte(b, 'e') + 1, 0
	}
	colon := bytes.IndexByte(b[:min(len(b), 12)], ':')
	if colon < 1 {
		return 0, 0
	}
	size, err := strconv.ParseUint(string(b[:colon]), 10, 31)
	if err != nil || size > uint64(len(b)-colon-1) {
		return 0, 0
	}
	return colon + 1 + int(size), 0
}
