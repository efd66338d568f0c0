package prefetch

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"dcfs/cache/piece"
	"dcfs/fs/tree"
)

const pieceLength = 16 << 10

func sample(t testing.TB, hot ...string) (*tree.Tree, piece.Layout) {
	t.Helper()
	tr, err := tree.Build([]tree.Node{
		{Path: "bin", Kind: tree.Dir, Mode: 0o755},
		{Path: "bin/app", Kind: tree.File, Mode: 0o755, Size: 10 * pieceLength},
		{Path: "bin/also", Link: "bin/app", Kind: tree.File},
		{Path: "conf", Kind: tree.File, Mode: 0o644, Size: 100},
		{Path: "empty", Kind: tree.File, Mode: 0o644},
		{Path: "lib", Kind: tree.Dir, Mode: 0o755},
		{Path: "lib/a.so", Kind: tree.File, Mode: 0o644, Size: 5*pieceLength + 7},
		{Path: "lib/b\xff.so", Kind: tree.File, Mode: 0o644, Size: 3 * pieceLength},
	}, tree.Plan{PieceLength: pieceLength, Hot: hot})
	if err != nil {
		t.Fatal(err)
	}
	return tr, piece.Layout{Total: tr.Total(), Length: tr.PieceLength()}
}

func TestPlanPutsTheTraceFirst(t *testing.T) {
	tr, layout := sample(t)
	app, _ := tr.Find("bin/app")
	lib, _ := tr.Find("lib/a.so")
	appAt, _ := tr.Span(app)
	libAt, libSize := tr.Span(lib)
	trace := &Trace{Entries: []Entry{
		{Path: "lib/a.so", Off: libSize - 1, Len: 1 << 40},
		{Path: "not/there", Len: 5},
		{Path: "empty", Len: 5},
		{Path: "lib/a.so", Off: libSize, Len: 1},
		{Path: "bin/app", Off: 2 * pieceLength, Len: pieceLength},
		{Path: "bin/app", Off: pieceLength, Len: 2 * pieceLength},
		{Path: "lib/a.so", Off: libSize - 1, Len: 1},
	}}
	want := []piece.Index{layout.At(libAt + libSize - 1)}
	for _, off := range []int64{2 * pieceLength, 3*pieceLength - 1, pieceLength} {
		if i := layout.At(appAt + off); !slices.Contains(want, i) {
			want = append(want, i)
		}
	}
	order, traced := Plan(tr, layout, trace)
	if traced != len(want) || !slices.Equal(order[:traced], want) {
		t.Fatalf("first pieces %v (%d), want %v", order[:traced], traced, want)
	}
	if !slices.IsSorted(order[traced:]) {
		t.Errorf("the rest is not in stream order: %v", order[traced:])
	}
}

func TestPlanWithoutTrace(t *testing.T) {
	tr, layout := sample(t)
	order, traced := Plan(tr, layout, nil)
	if traced != 0 || len(order) != layout.Count() || !slices.IsSorted(order) {
		t.Fatalf("traced %d, order %v", traced, order)
	}
	if order, _ := Plan(tr, piece.Layout{}, nil); len(order) != 0 {
		t.Fatalf("the empty layout has the plan %v", order)
	}
}

// Whatever the trace says, the plan holds each piece once.
func TestPlanIsAPermutation(t *testing.T) {
	tr, layout := sample(t)
	paths := []string{"bin/app", "bin/also", "conf", "empty", "lib", "lib/a.so", "lib/b\xff.so", "x", "../x"}
	rapid.Check(t, func(t *rapid.T) {
		trace := &Trace{}
		for range rapid.IntRange(0, 40).Draw(t, "n") {
			trace.Entries = append(trace.Entries, Entry{
				Path: rapid.SampledFrom(paths).Draw(t, "path"),
				Off:  rapid.Int64Range(-1, 12*pieceLength).Draw(t, "off"),
				Len:  rapid.Int64().Draw(t, "len"),
			})
		}
		order, traced := Plan(tr, layout, trace)
		if traced > len(order) || !slices.IsSorted(order[traced:]) {
			t.Fatalf("traced %d of %v", traced, order)
		}
		slices.Sort(order)
		for i, p := range order {
			if int(p) != i {
				t.Fatalf("not a permutation: %v", order)
			}
		}
		if len(order) != layout.Count() {
			t.Fatalf("%d pieces planned of %d", len(order), layout.Count())
		}
	})
}

// A trace in which every entry names the whole stream must not cost entries ×
// pieces steps; with half a million pieces that would never end.
func TestPlanIsNearlyLinear(t *testing.T) {
	tr, err := tree.Build([]tree.Node{{Path: "f", Kind: tree.File, Mode: 0o644, Size: pieceLength << 19}},
		tree.Plan{PieceLength: pieceLength})
	if err != nil {
		t.Fatal(err)
	}
	trace := &Trace{Entries: slices.Repeat([]Entry{{Path: "f", Off: pieceLength, Len: 1 << 50}}, MaxEntries)}
	order, traced := Plan(tr, piece.Layout{Total: tr.Total(), Length: pieceLength}, trace)
	if len(order) != 1<<19 || traced != 1<<19-1 || order[len(order)-1] != 0 {
		t.Fatalf("%d pieces, %d traced", len(order), traced)
	}
}

func TestHotFeedsTheLayout(t *testing.T) {
	trace := &Trace{Entries: []Entry{{Path: "lib/a.so", Len: 1}, {Path: "conf", Len: 1}, {Path: "lib/a.so", Off: 9, Len: 1}}}
	if got := trace.Hot(); !slices.Equal(got, []string{"lib/a.so", "conf"}) {
		t.Fatalf("hot: %q", got)
	}
	tr, layout := sample(t, trace.Hot()...)
	if order, _ := Plan(tr, layout, trace); order[0] != 0 {
		t.Errorf("laid out by its own trace, the plan starts at piece %d", order[0])
	}
	if (*Trace)(nil).Hot() != nil {
		t.Error("no trace has hot paths")
	}
}

func TestRecorderKeepsFirstAccesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _ := sample(t)
		app, _ := tr.Find("bin/app")
		raw, _ := tr.Find("lib/b\xff.so")
		r := NewRecorder(tr, "web-1")
		r.Add(app, Window, 10) // stands under its inode, bin/also
		time.Sleep(5 * time.Millisecond)
		r.Add(app, Window+50, 10) // same window
		r.Add(raw, 3, 4)
		r.Add(app, 100, 2*Window) // the windows 0 and 2 are new, 1 is not
		r.Add(app, -1, 5)
		r.Add(app, 1<<60, 1<<60)
		r.Add(app, 0, 0)
		r.Add(tree.None, 0, 1)
		want := []Entry{
			{"bin/also", Window, 10, 0},
			{"lib/b\xff.so", 3, 4, 5 * time.Millisecond},
			{"bin/also", 100, Window - 100, 5 * time.Millisecond},
			{"bin/also", 2 * Window, 100, 5 * time.Millisecond},
		}
		if got := r.Trace(); got.Release != "web-1" || !slices.Equal(got.Entries, want) {
			t.Fatalf("got %+v", got)
		}
	})
}

func TestRecorderIsBounded(t *testing.T) {
	tr, _ := sample(t)
	r := NewRecorder(tr, "web-1")
	for i := range int64(MaxEntries) {
		if r.Full() {
			t.Fatalf("full after %d", i)
		}
		r.Add(1, 2*i*Window, 1)
	}
	r.Add(1, 1, 100*Window)
	if got := len(r.Trace().Entries); !r.Full() || got != MaxEntries {
		t.Fatalf("full %v with %d entries", r.Full(), got)
	}
}

func TestRecorderConcurrently(t *testing.T) {
	tr, _ := sample(t)
	r := NewRecorder(tr, "web-1")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range int64(1000) {
				r.Add(tree.ID(i%4), i*777, 5000)
				if i%100 == 0 {
					r.Trace()
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, e := range r.Trace().Entries {
		for w := e.Off / Window; w <= (e.Off+e.Len-1)/Window; w++ {
			key := fmt.Sprint(e.Path, w)
			if seen[key] {
				t.Fatalf("%s is recorded twice", key)
			}
			seen[key] = true
		}
	}
}

func TestWriteRead(t *testing.T) {
	want := &Trace{Release: "app/web-1", Entries: []Entry{
		{"bin/app", 0, 4096, 0}, {"a <&> \u00fc\n", 7, 1, 3 * time.Millisecond}, {"b\xff", 1 << 40, 9, time.Hour},
	}}
	var buf bytes.Buffer
	if err := want.Write(&buf); err != nil {
		t.Fatal(err)
	}
	if first, _, _ := strings.Cut(buf.String(), "\n"); first != `{"schema":1,"release":"app/web-1"}` {
		t.Errorf("header %s", first)
	}
	got, err := Read(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if got.Release != want.Release || !slices.Equal(got.Entries, want.Entries) {
		t.Fatalf("got %+v", got)
	}
}

func TestEncodeIsBounded(t *testing.T) {
	trace := &Trace{Release: "r", Entries: slices.Repeat([]Entry{{"bin/app", 0, 4096, 0}}, 100)}
	whole := len(trace.Encode(1 << 20))
	for limit := range whole + 1 {
		raw := trace.Encode(limit)
		if len(raw) > limit {
			t.Fatalf("%d bytes, want at most %d", len(raw), limit)
		}
		if len(raw) == 0 {
			continue
		}
		got, err := Read(bytes.NewReader(raw))
		if err != nil || len(got.Entries) > 100 || limit == whole && len(got.Entries) != 100 {
			t.Fatalf("limit %d: %v", limit, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	const head = `{"schema":1,"release":"r"}` + "\n"
	entry := func(s string) string { return head + s + "\n" }
	for name, in := range map[string]string{
		"empty":           "",
		"no header":       `{"path":"a","off":0,"len":1,"at_ms":0}`,
		"other schema":    `{"schema":2,"release":"r"}`,
		"long release":    `{"schema":1,"release":"` + strings.Repeat("r", 600) + `"}`,
		"unknown field":   entry(`{"path":"a","off":0,"len":1,"at_ms":0,"x":1}`),
		"no path":         entry(`{"off":0,"len":1,"at_ms":0}`),
		"absolute":        entry(`{"path":"/a","off":0,"len":1,"at_ms":0}`),
		"dots":            entry(`{"path":"a/../../b","off":0,"len":1,"at_ms":0}`),
		"up":              entry(`{"path":"..","off":0,"len":1,"at_ms":0}`),
		"NUL":             entry(`{"path":"a\u0000","off":0,"len":1,"at_ms":0}`),
		"long path":       entry(`{"path":"` + strings.Repeat("a", 5000) + `","off":0,"len":1,"at_ms":0}`),
		"long line":       entry(`{"path":"` + strings.Repeat("a", maxLine) + `"}`),
		"both paths":      entry(`{"path":"a","path_base64":"YQ==","off":0,"len":1,"at_ms":0}`),
		"negative offset": entry(`{"path":"a","off":-1,"len":1,"at_ms":0}`),
		"no length":       entry(`{"path":"a","off":0,"len":0,"at_ms":0}`),
		"overflow":        entry(`{"path":"a","off":9223372036854775807,"len":1,"at_ms":0}`),
		"time":            entry(`{"path":"a","off":0,"len":1,"at_ms":-1}`),
		"huge time":       entry(`{"path":"a","off":0,"len":1,"at_ms":9223372036854775807}`),
		"two objects":     entry(`{"path":"a","off":0,"len":1,"at_ms":0}{}`),
		"blank line":      entry(""),
		"too many":        head + strings.Repeat(`{"path":"a","off":0,"len":1,"at_ms":0}`+"\n", MaxEntries+1),
	} {
		t.Run(name, func(t *testing.T) {
			if tr, err := Read(strings.NewReader(in)); !errors.Is(err, ErrTrace) {
				t.Fatalf("got %v, %v", tr, err)
			}
		})
	}
}

func FuzzTrace(f *testing.F) {
	f.Add([]byte(`{"schema":1,"release":"r"}` + "\n" + `{"path":"bin/app","off":0,"len":1,"at_ms":0}` + "\n"))
	f.Add([]byte(`{"schema":1,"release":""}` + "\n" + `{"path_base64":"/w==","off":9,"len":1,"at_ms":5}`))
	f.Add([]byte(`{"schema":1}` + "\r\n" + `{"path":"conf","off":1e3,"len":9223372036854774807,"at_ms":0}`))
	tr, layout := sample(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		trace, err := Read(bytes.NewReader(in))
		if err != nil {
			return
		}
		if order, _ := Plan(tr, layout, trace); len(order) != layout.Count() {
			t.Fatalf("the plan has %d pieces of %d", len(order), layout.Count())
		}
		var buf bytes.Buffer
		if err := trace.Write(&buf); err != nil {
			t.Fatal(err)
		}
		again, err := Read(&buf)
		if err != nil || again.Release != trace.Release || !slices.Equal(again.Entries, trace.Entries) {
			t.Fatalf("what was read does not come back: %v", err)
		}
	})
}

// BenchmarkRecorder: what a READ of the kernel costs more when it is recorded.
func BenchmarkRecorder(b *testing.B) {
	tr, _ := sample(b)
	app, _ := tr.Find("bin/app")
	for _, reads := range []string{"new", "again"} {
		b.Run(reads, func(b *testing.B) {
			r := NewRecorder(tr, "r")
			at := int64(0)
			for i := 0; b.Loop(); i++ {
				if i%MaxEntries == 0 {
					r = NewRecorder(tr, "r")
				}
				if reads == "new" {
					at = int64(i%MaxEntries) * Window
				}
				r.Add(app, at, Window)
			}
		})
	}
}
