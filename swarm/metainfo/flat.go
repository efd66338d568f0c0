package metainfo

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Flat returns an info dictionary of the same payload stream as info's, total
// bytes long, in which the stream is one file: the pieces are the same, and
// nothing else is in it. Its info-hash is another. The exchange of pieces
// needs no more than this, and a client library that makes an object of every
// file is spared half a million of them. info was parsed before.
func Flat(info []byte, total int64) ([]byte, error) {
	d, err := parseDict(info)
	if err != nil {
		return nil, invalid(err)
	}
	pieces, err := d.string("pieces")
	if err != nil {
		return nil, invalid(err)
	}
	name, err := d.string("name")
	if err != nil {
		return nil, invalid(err)
	}
	for _, key := range []string{"piece length", "private"} {
		if len(d[key]) == 0 {
			return nil, fmt.Errorf("%w: its info dictionary: no %q", ErrInvalid, key)
		}
	}
	b := append(make([]byte, 0, len(pieces)+len(name)+128), 'd')
	b = appendInt(appendString(b, "length"), total)
	b = appendString(appendString(b, "name"), name)
	b = append(appendString(b, "piece length"), d["piece length"]...)
	b = appendString(appendString(b, "pieces"), pieces)
	b = append(appendString(b, "private"), d["private"]...)
	return append(b, 'e'), nil
}

// Cut returns the bytes in every piece but the last, and the SHA-1 of all
// pieces one after the other, of an info dictionary that was parsed before. The
// sums share its memory.
func Cut(info []byte) (length int64, sums []byte, err error) {
	d, err := parseDict(info)
	if err != nil {
		return 0, nil, invalid(err)
	}
	if sums, err = d.string("pieces"); err != nil {
		return 0, nil, invalid(err)
	}
	raw, ok := bytes.CutPrefix(d["piece length"], []byte("i"))
	length, err = strconv.ParseInt(strings.TrimSuffix(string(raw), "e"), 10, 64)
	if !ok || err != nil || length <= 0 {
		return 0, nil, fmt.Errorf("%w: its info dictionary: no piece length", ErrInvalid)
	}
	return length, sums, nil
}
