package prefetch

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"dcfs/fs/tree"
)

// wide is a tree of files that have several windows.
func wide(t testing.TB) *tree.Tree {
	t.Helper()
	tr, err := tree.Build([]tree.Node{
		{Path: "a", Kind: tree.File, Mode: 0o644, Size: 3*Window + 5},
		{Path: "b", Kind: tree.File, Mode: 0o644, Size: 100},
		{Path: "c", Kind: tree.File, Mode: 0o644, Size: 10},
		{Path: "d", Kind: tree.Dir, Mode: 0o755},
		{Path: "huge", Kind: tree.File, Mode: 0o644, Size: 1 << 40},
	}, tree.Plan{PieceLength: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestWithin(t *testing.T) {
	tr := wide(t)
	got := (&Trace{Release: "other", Entries: []Entry{
		{Path: "d", Len: 1},
		{Path: "gone", Len: 1},
		{Path: "a", Off: Window + 7, Len: math.MaxInt64 - Window - 7, At: 9},
		{Path: "b", Off: 100, Len: 1},
		{Path: "b", Off: 99, Len: 1},
		{Path: "a", Off: 0, Len: Window + 1},
	}}).Within(tr, 100)
	want := []Entry{
		{Path: "a", Off: Window, Len: 2*Window + 5},
		{Path: "b", Off: 0, Len: 100},
		{Path: "a", Off: 0, Len: Window},
	}
	if !slices.Equal(got.Entries, want) {
		t.Fatalf("got %+v, want %+v", got.Entries, want)
	}
}

// A trace that claims a long file a million times is little work.
func TestWithinIsBounded(t *testing.T) {
	tr := wide(t)
	hostile := &Trace{Entries: slices.Repeat([]Entry{{Path: "huge", Len: 1 << 40}}, MaxEntries)}
	if n := len(hostile.windows(tr, MaxShared)); n != MaxShared {
		t.Fatalf("%d windows, want %d", n, MaxShared)
	}
}

func names(t *Trace) string {
	var out []byte
	for _, e := range t.Entries {
		out = append(out, e.Path...)
	}
	return string(out)
}

func TestMerge(t *testing.T) {
	tr := wide(t)
	of := func(paths string) *Trace {
		out := &Trace{}
		for _, p := range paths {
			out.Entries = append(out.Entries, Entry{Path: string(p), Len: 1})
		}
		return out
	}
	for _, tc := range []struct {
		name      string
		publisher *Trace
		hosts     []*Trace
		want      string
	}{
		{"nothing", nil, nil, ""},
		{"publisher alone", of("cab"), nil, "cab"},
		{"one host", nil, []*Trace{of("bca")}, "bca"},
		{"publisher first", of("c"), []*Trace{of("bca")}, "cba"},
		{"one of three is left out", nil, []*Trace{of("ba"), of("ba"), of("cba")}, "ba"},
		{"the middle place counts", nil, []*Trace{of("abc"), of("bac"), of("bca")}, "bac"},
		{"half is enough", nil, []*Trace{of("a"), of("b")}, "ab"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := names(Merge(tr, tc.publisher, tc.hosts)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			rand.Shuffle(len(tc.hosts), func(i, j int) { tc.hosts[i], tc.hosts[j] = tc.hosts[j], tc.hosts[i] })
			if got := names(Merge(tr, tc.publisher, tc.hosts)); got != tc.want {
				t.Errorf("in another order: got %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzMerge: whatever hosts send, what the origin makes of it is bounded, is
// about files of the release, and can be read by every node.
func FuzzMerge(f *testing.F) {
	head := `{"schema":1,"release":"r"}` + "\n"
	f.Add([]byte(head+`{"path":"a","off":0,"len":1,"at_ms":0}`+"\n"), []byte(head+`{"path":"b","off":9,"len":99,"at_ms":1}`+"\n"))
	f.Add([]byte(head+`{"path":"huge","off":0,"len":1099511627776,"at_ms":0}`+"\n"), []byte(head))
	f.Add([]byte(head+`{"path":"a","off":131072,"len":9223372036854644735,"at_ms":0}`+"\n"), []byte(head+`{"path":"d","off":0,"len":1,"at_ms":0}`+"\n"))
	tr := wide(f)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var hosts []*Trace
		for _, raw := range [][]byte{a, b} {
			if len(raw) > MaxSharedBytes {
				return
			}
			if h, err := Read(bytes.NewReader(raw)); err == nil {
				hosts = append(hosts, h.Within(tr, MaxShared))
			}
		}
		merged := Merge(tr, nil, hosts)
		var bytesOf int64
		for _, e := range merged.Entries {
			id, ok := tr.Find(e.Path)
			if _, size := tr.Span(id); !ok || e.Off < 0 || e.Len <= 0 || e.Len > size-e.Off {
				t.Fatalf("%+v is no run of a file", e)
			}
			bytesOf += e.Len
		}
		if limit := int64(len(hosts)) * MaxShared * Window; bytesOf > limit {
			t.Fatalf("%d bytes of %d", bytesOf, limit)
		}
		var buf bytes.Buffer
		if err := merged.Write(&buf); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(&buf); err != nil {
			t.Fatal(err)
		}
	})
}
