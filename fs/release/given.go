package release

import "dcfs/fs/tree"

// GivenTo returns the same release with every entry of its tree given to an
// account of this host; see tree.GivenTo. What was signed stays what it is:
// Info, Metainfo and the payload stream are those of r.
func (r *Release) GivenTo(to tree.Account) *Release {
	out := *r
	out.Tree = r.Tree.GivenTo(to)
	return &out
}
