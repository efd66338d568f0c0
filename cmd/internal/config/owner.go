package config

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"dcfs/fs/tree"
)

// ParseOwner reads USER:GROUP, each a name of this host or a number.
func ParseOwner(s string) (tree.Account, error) {
	name, group, ok := strings.Cut(s, ":")
	if !ok || name == "" || group == "" || strings.Contains(group, ":") {
		return tree.Account{}, fmt.Errorf("%.80q is no owner: want USER:GROUP, such as app:app or 1000:1000", s)
	}
	uid, err := number(name, "user", func() (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return tree.Account{}, err
	}
	gid, err := number(group, "group", func() (string, error) {
		g, err := user.LookupGroup(group)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	return tree.Account{UID: uid, GID: gid}, err
}

// number reads a number, or has the name looked up. A name of digits only is
// a number.
func number(text, kind string, lookup func() (string, error)) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		found, lookupErr := lookup()
		if lookupErr != nil {
			return 0, fmt.Errorf("this host knows no %s %.40q; give a number", kind, text)
		}
		if n, err = strconv.ParseUint(found, 10, 32); err != nil {
			return 0, fmt.Errorf("the %s %.40q has no number of this system: %s", kind, text, found)
		}
	}
	if n == tree.NoAccount {
		return 0, fmt.Errorf("no file can belong to the %s %d", kind, n)
	}
	return uint32(n), nil
}
