// Package catalog says which release a word on the command line means, and
// speaks to the HTTP API of origins: the words, the client, and the JSON types
// that client and server share.
//
// It must never look inside the metainfo beyond its infohash (fs/release opens
// and verifies it), never trust the length or the text of what an origin
// sends, and never follow an origin to another host.
package catalog

import (
	"fmt"
	"strings"
)

// Version names a release: [app/]version, see ParseVersion. The zero Version
// names nothing.
type Version string

const (
	maxVersion  = 200 // bytes; it becomes part of file names, which have at most 255
	maxSegments = 8
	torrentExt  = ".torrent"
)

// ParseVersion checks that s is a name that a release can have: one to eight
// path segments of [A-Za-z0-9._+-], none starting with a dot, 200 bytes in
// all. The whole must not end in ".torrent" or ".trace", for that is how the
// origin names the metainfo of VERSION and its trace. Errors wrap ErrUsage.
func ParseVersion(s string) (Version, error) {
	segments := strings.Split(s, "/")
	if len(s) > maxVersion {
		return "", badVersion(s, fmt.Sprintf("it is longer than %d bytes", maxVersion))
	}
	if len(segments) > maxSegments {
		return "", badVersion(s, fmt.Sprintf("it has more than %d segments", maxSegments))
	}
	for _, seg := range segments {
		if why := checkSegment(seg); why != "" {
			return "", badVersion(s, why)
		}
	}
	if strings.HasSuffix(s, torrentExt) {
		return "", badVersion(s, "it ends in "+torrentExt+", which names a release's metainfo")
	}
	if strings.HasSuffix(s, traceExt) {
		return "", badVersion(s, "it ends in "+traceExt+", which names a release's trace")
	}
	return Version(s), nil
}

func badVersion(s, why string) error {
	return fmt.Errorf("%w: %q is not a VERSION: %s", ErrUsage, clip(s), why)
}

func checkSegment(seg string) string {
	switch {
	case seg == "":
		return "a segment is empty"
	case seg[0] == '.':
		return "a segment starts with a dot"
	}
	for i := range len(seg) {
		if !versionByte(seg[i]) {
			return fmt.Sprintf("%q is not one of A-Z a-z 0-9 . _ + -", seg[i:i+1])
		}
	}
	return ""
}

func versionByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '.' || c == '_' || c == '+' || c == '-'
}

// UnmarshalText is ParseVersion, so that JSON from a stranger holds no name
// that could not have been published.
func (v *Version) UnmarshalText(text []byte) error {
	parsed, err := ParseVersion(string(text))
	*v = parsed
	return err
}
