package tree

import (
	"reflect"
	"testing"
)

// All belongs to the account, setuid and setgid stay only with who had the file
// before, and nothing else changes; the first tree stays what it was.
func TestGivenTo(t *testing.T) {
	nodes := []Node{
		{Path: ".", Kind: Dir, Mode: 0o2755, UID: 7, GID: 7},
		{Path: "mine", Kind: File, Mode: 0o6755, UID: 1, GID: 2, Size: 5},
		{Path: "other", Kind: File, Mode: 0o4711, UID: 0, GID: 2, Size: 9},
		{Path: "link", Kind: File, Link: "other"},
		{Path: "sym", Kind: Symlink, Mode: 0o777, UID: 3, Target: "x"},
		{Path: "tmp", Kind: Dir, Mode: 0o1777, UID: 3, GID: 4},
	}
	tr, err := Build(nodes, Plan{})
	if err != nil {
		t.Fatal(err)
	}
	before := string(Encode(tr))
	got := tr.GivenTo(Account{1, 2})
	if string(Encode(tr)) != before {
		t.Error("the first tree changed")
	}
	modes := map[string]uint32{".": 0o755, "mine": 0o6755, "other": 0o711, "link": 0o711, "sym": 0o777, "tmp": 0o1777}
	for id := range ID(got.Len()) {
		e, want := got.Entry(id), tr.Entry(id)
		want.UID, want.GID, want.Mode = 1, 2, modes[tr.Path(id)]
		if !reflect.DeepEqual(e, want) {
			t.Errorf("%s: %+v, want %+v", tr.Path(id), e, want)
		}
	}
	if back, err := Decode(Encode(got)); err != nil || string(Encode(back)) != string(Encode(got)) {
		t.Errorf("it does not survive its encoding: %v", err)
	}
}
