package materialise

import (
	"slices"

	"dcfs/fs/durable"
)

// maxReceipt bounds a receipt that is read: paths have 4,096 bytes at most.
const maxReceipt = 64 << 10

// Receipts lists the releases that stand complete on this host, the newest
// first. What cannot be read or is not there any more is left out.
func Receipts(state string) ([]Receipt, error) {
	all, err := Recorded(state)
	if err != nil {
		return nil, err
	}
	var out []Receipt
	for _, r := range all {
		if id, err := identify(durable.Disk{}, r.Dest); err == nil && id.is(r) {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b Receipt) int { return b.Completed.Compare(a.Completed) })
	return out, nil
}

// Find returns the receipt of the release that the directory at path is, by
// whatever path that was finished: a bind mount of a release is that release.
func Find(state, path string) (Receipt, bool, error) {
	id, err := identify(durable.Disk{}, path)
	if err != nil {
		return Receipt{}, false, err
	}
	all, err := Receipts(state)
	for _, r := range all {
		if id.is(r) {
			return r, true, nil
		}
	}
	return Receipt{}, false, err
}
