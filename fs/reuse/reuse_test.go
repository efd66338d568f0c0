package reuse

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"dcfs/cache/piece"
	"dcfs/fs/snapshot"
	"dcfs/fs/tree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testPiece = tree.MinPieceLength

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// files is what a directory holds, by path.
type files map[string][]byte

func (f files) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range f {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, b, 0o644))
	}
	return dir
}

func (f files) with(name string, b []byte) files {
	out := files{name: b}
	for k, v := range f {
		if k != name {
			out[k] = v
		}
	}
	return out
}

// published is a directory as a release.
type published struct {
	Known
	dir     string
	payload []byte
}

func publish(t testing.TB, f files) published {
	t.Helper()
	dir := f.write(t)
	scan, err := tree.Scan(t.Context(), dir, tree.ScanOptions{})
	must(t, err)
	tr, err := tree.Build(scan.Nodes, tree.Plan{PieceLength: testPiece})
	must(t, err)
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	p := published{dir: dir, payload: make([]byte, tr.Total())}
	found, err := snapshot.Hash(t.Context(), snapshot.Config{Root: root, Tree: tr, Sink: memory(p.payload)})
	must(t, err)
	p.Tree = tr.WithSums(found.Sum).WithWeak(found.Weak)
	p.Layout = piece.Layout{Total: tr.Total(), Length: tr.PieceLength()}
	p.Hash = func(i piece.Index) [sha1.Size]byte { return [sha1.Size]byte(found.Pieces[int(i)*sha1.Size:]) }
	return p
}

type memory []byte

func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

func (p published) source() Source {
	return Source{Dir: p.dir, Load: func() (Known, error) { return p.Known, nil }}
}

// store takes pieces as cache.Store does.
type store struct {
	of      published
	have    map[piece.Index]bool
	claimed map[piece.Index]bool
	backing []byte // what clones put there
	refuse  error
}

func (s *store) Have(i piece.Index) bool { return s.have[i] || s.claimed[i] }

func (s *store) Offer(i piece.Index, b []byte) (bool, error) {
	if s.refuse != nil {
		return false, s.refuse
	}
	if sha1.Sum(b) != s.of.Hash(i) {
		return false, nil
	}
	s.have[i] = true
	return true, nil
}

func (s *store) Claim(set *piece.Set) *piece.Set {
	for i := range set.All() {
		s.claimed[i] = true
	}
	return set.Clone()
}

func (s *store) Scrub(context.Context) {
	for i := range s.claimed {
		off := s.of.Layout.Offset(i)
		s.have[i] = sha1.Sum(s.backing[off:off+s.of.Layout.Size(i)]) == s.of.Hash(i)
	}
	clear(s.claimed)
}

func newStore(of published) *store {
	return &store{of: of, have: map[piece.Index]bool{}, claimed: map[piece.Index]bool{}, backing: make([]byte, len(of.payload))}
}

// outcome is what a run left to fetch.
type outcome struct {
	Stats
	missing []piece.Index
}

func run(t testing.TB, next published, st *store, more func(*Config), sources ...Source) outcome {
	t.Helper()
	decided := map[piece.Index]int{}
	cfg := Config{Tree: next.Tree, Layout: next.Layout, Hash: next.Hash, Store: st, Sources: sources,
		Decided: func(i piece.Index) { decided[i]++ }}
	if more != nil {
		more(&cfg)
	}
	r := New(t.Context(), cfg)
	held := r.Held().Clone()
	stats, err := r.Run(t.Context())
	must(t, err)
	if r.Bytes() != stats.Bytes {
		t.Errorf("Bytes %d, stats %d", r.Bytes(), stats.Bytes)
	}
	must(t, r.Close())
	out := outcome{Stats: stats}
	for i := range piece.Index(next.Layout.Count()) {
		if held.Has(i) != (decided[i] == 1) {
			t.Errorf("piece %d: held %v, decided %d times", i, held.Has(i), decided[i])
		}
		if st.have[i] && !held.Has(i) {
			t.Errorf("piece %d is here and was not held back", i)
		}
		if !st.have[i] {
			out.missing = append(out.missing, i)
		}
	}
	return out
}

// holding returns the pieces that hold any of the n bytes from off of a file.
func (p published) holding(t testing.TB, path string, off, n int64) (out []piece.Index) {
	t.Helper()
	id, ok := p.Tree.Find(path)
	if !ok {
		t.Fatalf("no %s", path)
	}
	start, _ := p.Tree.Span(id)
	r := p.Layout.Cover(start+off, n)
	for i := r.First; i < r.End; i++ {
		out = append(out, i)
	}
	return out
}

func sample() files {
	f := files{"big": content(1, 20*testPiece+77), "sub/other": content(2, 9*testPiece)}
	for i := range byte(30) {
		f["small/"+string('a'+rune(i))] = content(10+i, 3000+int(i))
	}
	return f
}

// TestRules: each rule finds what it is for, and only the pieces that hold a
// change are left.
func TestRules(t *testing.T) {
	old := sample()
	big := old["big"]
	flipped := bytes.Clone(big)
	flipped[5*testPiece+1]++
	for _, c := range []struct {
		name    string
		next    files
		changed func(t testing.TB, p published) []piece.Index
		unknown bool // the source is a directory without a receipt
		moved   bool
	}{
		{name: "equal", next: old},
		{name: "equal, unknown", next: old, unknown: true},
		{name: "renamed", next: files{"elsewhere/big2": big, "x": old["small/a"]}},
		{name: "one byte of a large file", next: old.with("big", flipped), changed: func(t testing.TB, p published) []piece.Index {
			return p.holding(t, "big", 5*testPiece, 1)
		}},
		{name: "the same, unknown", unknown: true, next: old.with("big", flipped), changed: func(t testing.TB, p published) []piece.Index {
			return p.holding(t, "big", 5*testPiece, 1)
		}},
		{name: "grown at its end", next: old.with("big", append(bytes.Clone(big), content(3, 2*testPiece)...)), changed: func(t testing.TB, p published) []piece.Index {
			return p.holding(t, "big", 20*testPiece+77, 2*testPiece)
		}},
		{name: "cut", next: old.with("big", big[:11*testPiece+5])},
		{name: "inserted at its start", moved: true, next: old.with("big", append(content(4, 100), big...)), changed: func(t testing.TB, p published) []piece.Index {
			return p.holding(t, "big", 0, 100)
		}},
		{name: "the same, unknown", unknown: true, moved: true, next: old.with("big", append(content(4, 100), big...)), changed: func(t testing.TB, p published) []piece.Index {
			return p.holding(t, "big", 0, 100)
		}},
		{name: "cut at its start", moved: true, next: old.with("big", big[100:])},
		{name: "a small file of another length", next: old.with("small/c", content(5, 20)), changed: func(t testing.TB, p published) []piece.Index {
			return p.holding(t, "small/c", 0, 20)
		}},
		{name: "twice in the next release", next: old.with("small2", big)},
		{name: "nothing in common", next: files{"new": content(6, 5*testPiece)}, changed: func(t testing.TB, p published) []piece.Index {
			return p.holding(t, "new", 0, 5*testPiece)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, next := publish(t, old), publish(t, c.next)
			src := from.source()
			if c.unknown {
				src.Load = nil
			}
			got := run(t, next, newStore(next), nil, src)
			var want []piece.Index
			if c.changed != nil {
				want = c.changed(t, next)
			}
			if !slices.Equal(got.missing, want) {
				t.Errorf("left to fetch %v, want %v (%+v)", got.missing, want, got.Stats)
			}
			if got.Pieces != next.Layout.Count()-len(want) || (got.Moved > 0) != c.moved {
				t.Errorf("%+v", got.Stats)
			}
		})
	}
}

// TestSeveralSources: each gives what it has, also of one piece.
func TestSeveralSources(t *testing.T) {
	all := sample()
	a, b := files{}, files{}
	for name, c := range all {
		if name < "small/m" {
			a[name] = c
		} else {
			b[name] = c
		}
	}
	next := publish(t, all)
	got := run(t, next, newStore(next), nil,
		Source{Dir: filepath.Join(t.TempDir(), "gone")}, publish(t, a).source(),
		Source{Dir: b.write(t), Load: func() (Known, error) { return Known{}, errors.New("no metainfo") }})
	if len(got.missing) > 0 {
		t.Errorf("left to fetch %v", got.missing)
	}
}

// TestOldDirectoryIsHostile: whatever stands there, nothing wrong is taken,
// nothing outside is read, and nothing hangs.
func TestOldDirectoryIsHostile(t *testing.T) {
	old := sample()
	for name, spoil := range map[string]func(t *testing.T, dir, big string){
		"removed":         func(t *testing.T, _, big string) { must(t, os.Remove(big)) },
		"truncated":       func(t *testing.T, _, big string) { must(t, os.Truncate(big, 10)) },
		"changed":         func(t *testing.T, _, big string) { must(t, os.WriteFile(big, content(9, 20*testPiece+77), 0o644)) },
		"unreadable":      func(t *testing.T, _, big string) { must(t, os.Chmod(big, 0)) },
		"directory":       func(t *testing.T, _, big string) { must(t, os.Remove(big)); must(t, os.Mkdir(big, 0o755)) },
		"FIFO":            func(t *testing.T, _, big string) { must(t, os.Remove(big)); must(t, unix.Mkfifo(big, 0o644)) },
		"symlink outside": symlinkOutside,
		"symlink to itself": func(t *testing.T, _, big string) {
			must(t, os.Remove(big))
			must(t, os.Symlink("big", big))
		},
		"directory is a symlink outside": func(t *testing.T, dir, _ string) {
			other := filepath.Join(t.TempDir(), "sub")
			must(t, os.Rename(filepath.Join(dir, "sub"), other))
			must(t, os.Symlink(other, filepath.Join(dir, "sub")))
			must(t, os.Remove(filepath.Join(dir, "big")))
		},
	} {
		for _, known := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				from, next := publish(t, old), publish(t, old.with("new", content(8, 50)))
				spoil(t, from.dir, filepath.Join(from.dir, "big"))
				src := from.source()
				if !known {
					src.Load = nil
				}
				st := newStore(next)
				got := run(t, next, st, nil, src)
				readable := name == "unreadable" && os.Geteuid() == 0
				for _, i := range next.holding(t, "big", 0, 20*testPiece) {
					if st.have[i] != readable {
						t.Errorf("piece %d: here %v", i, st.have[i])
					}
				}
				outside := name == "directory is a symlink outside"
				for _, i := range next.holding(t, "sub/other", 0, 9*testPiece) {
					if st.have[i] == outside {
						t.Errorf("piece %d of sub/other: here %v", i, st.have[i])
					}
				}
				if got.Pieces == 0 {
					t.Error("nothing of the rest was reused")
				}
			})
		}
	}
}

// symlinkOutside puts the very content where a symlink leads out to: it must
// not even be looked at.
func symlinkOutside(t *testing.T, _, big string) {
	other := filepath.Join(t.TempDir(), "big")
	must(t, os.Rename(big, other))
	must(t, os.Symlink(other, big))
}

// TestSourceLies: the tree and the hashes of an old release say what is not so.
func TestSourceLies(t *testing.T) {
	next := publish(t, sample())
	wrong := files{}
	for name, b := range sample() {
		wrong[name] = content(77, len(b))
	}
	got := run(t, next, newStore(next), nil, Source{Dir: wrong.write(t), Load: func() (Known, error) { return next.Known, nil }})
	if got.Pieces != 0 || len(got.missing) != next.Layout.Count() {
		t.Errorf("%+v", got)
	}
}

// TestClones: whole files are cloned, claimed and counted once hashed; a
// damaged one costs its pieces; a filesystem that cannot is asked once.
func TestClones(t *testing.T) {
	from := publish(t, sample())
	next := publish(t, sample().with("zz", content(50, 10)))
	noClone := errors.New("cannot")
	for _, c := range []struct {
		name    string
		err     error
		damage  bool
		calls   int // 0 for one a file
		missing int
	}{
		{name: "cloned", missing: 1},
		{name: "damaged", damage: true, missing: 21}, // the new file shares a piece with its end,
		{name: "cannot", err: noClone, calls: 1, missing: 1},
		{name: "fails", err: unix.EIO, calls: 1, missing: 1},
		{name: "there already", err: fs.ErrExist, calls: 32, missing: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, calls := newStore(next), 0
			got := run(t, next, st, func(cfg *Config) {
				cfg.NoClone = noClone
				cfg.Clone = func(id tree.ID, src *os.File) error {
					if calls++; c.err != nil {
						return c.err
					}
					off, size := next.Tree.Span(id)
					if _, err := src.ReadAt(st.backing[off:off+size], 0); err != nil {
						return err
					}
					if c.damage && next.Tree.Path(id) == "big" {
						clear(st.backing[off : off+size])
					}
					return nil
				}
			}, from.source())
			if len(got.missing) != c.missing || c.calls > 0 && calls != c.calls {
				t.Errorf("%d calls, left to fetch %v: %+v", calls, got.missing, got.Stats)
			}
			if (got.Cloned > 0) != (c.err == nil) || got.Pieces != next.Layout.Count()-c.missing {
				t.Errorf("%+v", got.Stats)
			}
		})
	}
}

// TestWhatIsHereIsLeftAlone: pieces that came meanwhile, or before, are neither
// held nor read again.
func TestWhatIsHereIsLeftAlone(t *testing.T) {
	next := publish(t, sample())
	st := newStore(next)
	for i := range piece.Index(next.Layout.Count()) {
		st.have[i] = true
	}
	r := New(t.Context(), Config{Tree: next.Tree, Layout: next.Layout, Hash: next.Hash, Store: st, Sources: []Source{next.source()}})
	defer r.Close()
	if r.Held().Len() != 0 {
		t.Errorf("held %d", r.Held().Len())
	}
	if s, err := r.Run(t.Context()); s.Bytes != 0 || err != nil {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestEnds: when it is told to end, or the store is, everything held is let go.
func TestEnds(t *testing.T) {
	next := publish(t, sample())
	gone := errors.New("closed")
	for name, want := range map[string]error{"cancelled": context.Canceled, "store closed": gone} {
		t.Run(name, func(t *testing.T) {
			st, left := newStore(next), 0
			r := New(t.Context(), Config{Tree: next.Tree, Layout: next.Layout, Hash: next.Hash, Store: st,
				Sources: []Source{next.source()}, Decided: func(piece.Index) { left++ }})
			defer r.Close()
			held := r.Held().Len()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if want == gone {
				st.refuse = gone
			} else {
				cancel()
			}
			if _, err := r.Run(ctx); !errors.Is(err, want) {
				t.Errorf("error %v, want %v", err, want)
			}
			if held == 0 || left != held {
				t.Errorf("%d of %d held pieces were let go", left, held)
			}
		})
	}
}

// TestRepeatingContentIsBounded: weak sums that are found everywhere must not
// have every byte hashed.
func TestRepeatingContentIsBounded(t *testing.T) {
	n := 40 * testPiece
	zeros := make([]byte, n)
	next := bytes.Clone(zeros) // every piece starts with zeros and ends otherwise
	for i := testPiece - 1; i < n; i += testPiece {
		copy(next[i-8:], content(byte(i/testPiece), 9))
	}
	from, to := publish(t, files{"f": zeros}), publish(t, files{"f": next})
	hashed := 0
	st := newStore(to)
	got := run(t, to, st, func(cfg *Config) {
		cfg.Hash = func(i piece.Index) [sha1.Size]byte { hashed++; return to.Hash(i) }
	}, from.source())
	if len(got.missing) != to.Layout.Count() {
		t.Errorf("missing %d of %d", len(got.missing), to.Layout.Count())
	}
	if hashed > 20*to.Layout.Count() {
		t.Errorf("%d comparisons of %d pieces", hashed, to.Layout.Count())
	}
}

// BenchmarkSearch is what the search through an old file costs when it finds
// nothing.
func BenchmarkSearch(b *testing.B) {
	const size = 64 << 20
	from, next := files{"f": content(1, size)}.write(b), publish(b, files{"f": content(2, size)})
	b.SetBytes(size)
	for b.Loop() {
		r := New(b.Context(), Config{Tree: next.Tree, Layout: next.Layout, Hash: next.Hash, Store: newStore(next)})
		s, err := openSource(from)
		must(b, err)
		f := &largeFile{pieces: piece.Range{End: piece.Index(next.Layout.Count())}}
		for f.id, f.weak = range next.Tree.WeakSums() {
		}
		for i := range f.pieces.End {
			f.missing = append(f.missing, i)
		}
		old, n, err := s.open("f")
		must(b, err)
		if _, err := r.newScan(f, 0, "f").run(b.Context(), io.NewSectionReader(old, 0, n)); err != nil {
			b.Fatal(err)
		}
		must(b, errors.Join(s.close(), r.Close()))
	}
}
