package metainfo

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// A reader of canonical bencode (BEP 3) that never allocates what a length
// claims: everything it returns is a part of its input. A decoder built on
// reflection has to allocate before it knows, and nests without a bound.

const (
	maxDepth  = 8  // a file's path lies five levels below the top
	maxFields = 64 // of a dictionary that is looked into
)

var errShort = errors.New("it ends too early")

// skip returns the length of the value that b starts with. The value is
// canonical in all its depth: keys rise, numbers have no leading zeros.
func skip(b []byte, depth int) (int, error) {
	if len(b) == 0 {
		return 0, errShort
	}
	switch c := b[0]; {
	case c == 'i':
		return skipInt(b)
	case c >= '0' && c <= '9':
		_, n, err := stringAt(b)
		return n, err
	case c != 'l' && c != 'd':
		return 0, fmt.Errorf("no value starts with %q", c)
	case depth >= maxDepth:
		return 0, fmt.Errorf("values nest deeper than %d", maxDepth)
	case c == 'd':
		return skipDict(b, depth, nil)
	}
	n := 1
	for n < len(b) && b[n] != 'e' {
		k, err := skip(b[n:], depth+1)
		if err != nil {
			return 0, err
		}
		n += k
	}
	return end(b, n)
}

// end returns the length of a list or dictionary whose last value ends at n.
func end(b []byte, n int) (int, error) {
	if n >= len(b) {
		return 0, errShort
	}
	return n + 1, nil
}

// skipDict skips a dictionary and hands its fields to each, unless nil.
func skipDict(b []byte, depth int, each func(key string, value []byte) error) (int, error) {
	var last []byte
	n := 1
	for n < len(b) && b[n] != 'e' {
		key, k, err := stringAt(b[n:])
		if err != nil {
			return 0, fmt.Errorf("a key: %w", err)
		}
		if n > 1 && bytes.Compare(last, key) >= 0 {
			return 0, fmt.Errorf("the key %.40q is not in order", key)
		}
		last, n = key, n+k
		if k, err = skip(b[n:], depth+1); err != nil {
			return 0, fmt.Errorf("%.40q: %w", key, err)
		}
		if each != nil {
			if err := each(string(key), b[n:n+k:n+k]); err != nil {
				return 0, err
			}
		}
		n += k
	}
	return end(b, n)
}

func skipInt(b []byte) (int, error) {
	n := 1
	if n < len(b) && b[n] == '-' {
		n++
	}
	v, k := number(b[n:])
	if k == 0 || n+k >= len(b) || b[n+k] != 'e' || v == 0 && n > 1 {
		return 0, fmt.Errorf("%.22q is no number", b)
	}
	return n + k + 1, nil
}

// number returns the number that b starts with and how many digits it has: up
// to 18 and no zero in front, or it has none. Half a million files have
// millions of numbers, hence not strconv, which wants strings.
func number(b []byte) (v int64, n int) {
	for n < len(b) && b[n] >= '0' && b[n] <= '9' {
		if n == 18 || n == 1 && v == 0 {
			return 0, 0
		}
		v = 10*v + int64(b[n]-'0')
		n++
	}
	return v, n
}

// stringAt returns the string that b starts with, and where it ends.
func stringAt(b []byte) ([]byte, int, error) {
	size, n := number(b)
	if n == 0 || n == len(b) || b[n] != ':' {
		return nil, 0, fmt.Errorf("%.20q is no string", b)
	}
	if size > int64(len(b)-n-1) {
		return nil, 0, errShort
	}
	last := n + 1 + int(size)
	return b[n+1 : last : last], last, nil
}

// dict is a dictionary's fields with their values as they stand.
type dict map[string][]byte

// parseDict reads b, which is one dictionary and nothing else.
func parseDict(b []byte) (dict, error) {
	if len(b) == 0 || b[0] != 'd' {
		return nil, errors.New("it is no dictionary")
	}
	out := make(dict)
	n, err := skipDict(b, 0, func(key string, value []byte) error {
		if len(out) == maxFields {
			return fmt.Errorf("more than %d keys", maxFields)
		}
		out[key] = value
		return nil
	})
	if err != nil {
		return nil, err
	}
	if n != len(b) {
		return nil, fmt.Errorf("%d bytes follow its end", len(b)-n)
	}
	return out, nil
}

// string returns the string under key, nil if there is none.
func (d dict) string(key string) ([]byte, error) {
	raw, ok := d[key]
	if !ok {
		return nil, nil
	}
	s, n, err := stringAt(raw)
	if err != nil || n != len(raw) {
		return nil, fmt.Errorf("%q is no string", key)
	}
	return s, nil
}

// dict returns the dictionary under key, nil if there is none.
func (d dict) dict(key string) (dict, error) {
	raw, ok := d[key]
	if !ok {
		return nil, nil
	}
	out, err := parseDict(raw)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", key, err)
	}
	return out, nil
}

// flatten appends the strings of a value that is a string, or a list of such
// values, to any depth that skip allows. raw has passed skip.
func flatten(out []string, raw []byte) ([]string, error) {
	switch raw[0] {
	case 'i', 'd':
		return nil, errors.New("neither a string nor a list")
	case 'l':
		for raw = raw[1:]; raw[0] != 'e'; {
			n, err := skip(raw, 0)
			if err != nil {
				return nil, err
			}
			if out, err = flatten(out, raw[:n]); err != nil {
				return nil, err
			}
			raw = raw[n:]
		}
		return out, nil
	}
	s, _, err := stringAt(raw)
	if err == nil && len(out) == maxURLs {
		err = fmt.Errorf("more than %d", maxURLs)
	}
	return append(out, string(s)), err
}

func appendString[T string | []byte](b []byte, s T) []byte {
	b = append(strconv.AppendInt(b, int64(len(s)), 10), ':')
	return append(b, s...)
}

func appendInt(b []byte, v int64) []byte {
	return append(strconv.AppendInt(append(b, 'i'), v, 10), 'e')
}

func appendList(b []byte, list []string) []byte {
	b = append(b, 'l')
	for _, s := range list {
		b = appendString(b, s)
	}
	return append(b, 'e')
}
