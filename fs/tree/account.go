package tree

import (
	"math"
	"slices"
	"syscall"
)

// Account is a user and a group, by number.
type Account struct{ UID, GID uint32 }

// NoAccount is what chown(2) takes for "leave it as it is"; no file can belong
// to it.
const NoAccount = math.MaxUint32

// GivenTo returns a copy of t, sharing most, in which every entry belongs to
// to. Whoever belonged to somebody else loses setuid and setgid, which would
// grant the rights of an account that the publisher never meant. Content and
// layout are the same, so it is the same payload stream.
func (t *Tree) GivenTo(to Account) *Tree {
	out := *t
	out.owners = []owner{{to.UID, to.GID}}
	out.nodes = slices.Clone(t.nodes)
	for i := range out.nodes {
		n := &out.nodes[i]
		if t.owners[n.owner] != out.owners[0] {
			n.mode &^= syscall.S_ISUID | syscall.S_ISGID
		}
		n.owner = 0
	}
	return &out
}
