package config

import (
	"testing"

	"dcfs/fs/tree"
)

func TestParseOwner(t *testing.T) {
	for in, want := range map[string]tree.Account{
		"0:0": {}, "1000:1001": {UID: 1000, GID: 1001}, "root:root": {}, "root:7": {GID: 7},
		"4294967294:4294967294": {UID: 1<<32 - 2, GID: 1<<32 - 2},
	} {
		if got, err := ParseOwner(in); err != nil || got != want {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", ":", "root", "root:", ":root", "0:0:0", "-1:0", "0:-1", "4294967295:0", "0:4294967295",
		"4294967296:0", "no such user:0", "0:no such group", "0x1:0", " 0:0",
	} {
		if got, err := ParseOwner(in); err == nil {
			t.Errorf("%q is taken as %v", in, got)
		}
	}
}
