package tracker

import (
	"errors"
	"strconv"
	"strings"
	"testing"
)

// decodeAll reads one bencoded value as BEP 3 says and not one byte more
// freely: keys in order and once, no leading zeros, nothing behind the value.
func decodeAll(s string) (any, error) {
	v, rest, err := decode(s, 0)
	if err == nil && rest != "" {
		err = errors.New("bytes behind the value")
	}
	return v, err
}

func decode(s string, depth int) (any, string, error) {
	if s == "" || depth > 8 {
		return nil, "", errors.New("cut short or too deep")
	}
	switch c := s[0]; {
	case c == 'i':
		digits, rest, ok := strings.Cut(s[1:], "e")
		n, err := strconv.ParseInt(digits, 10, 64)
		if !ok || err != nil || strconv.FormatInt(n, 10) != digits {
			return nil, "", errors.New("bad integer")
		}
		return n, rest, nil
	case c >= '0' && c <= '9':
		return decodeString(s)
	case c == 'l':
		return decodeList(s[1:], depth)
	case c == 'd':
		return decodeDict(s[1:], depth)
	}
	return nil, "", errors.New("bad type")
}

func decodeString(s string) (string, string, error) {
	digits, rest, ok := strings.Cut(s, ":")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || strconv.Itoa(n) != digits || n < 0 || n > len(rest) {
		return "", "", errors.New("bad string")
	}
	return rest[:n], rest[n:], nil
}

func decodeList(s string, depth int) (any, string, error) {
	list := []any{}
	for !strings.HasPrefix(s, "e") {
		v, rest, err := decode(s, depth+1)
		if err != nil {
			return nil, "", err
		}
		list, s = append(list, v), rest
	}
	return list, s[1:], nil
}

func decodeDict(s string, depth int) (any, string, error) {
	dict, last := map[string]any{}, ""
	for !strings.HasPrefix(s, "e") {
		key, rest, err := decodeString(s)
		if err != nil {
			return nil, "", err
		}
		if len(dict) > 0 && key <= last {
			return nil, "", errors.New("keys out of order or twice")
		}
		v, rest, err := decode(rest, depth+1)
		if err != nil {
			return nil, "", err
		}
		dict[key], last, s = v, key, rest
	}
	return dict, s[1:], nil
}

func TestDecoderIsStrict(t *testing.T) {
	for _, bad := range []string{"", "i01e", "i-0e", "i1", "01:a", "5:ab", "d1:bi1e1:ai1ee", "d1:ai1e1:ai1ee", "lee", "i1ei2e"} {
		if v, err := decodeAll(bad); err == nil {
			t.Errorf("%q decoded to %v", bad, v)
		}
	}
}
