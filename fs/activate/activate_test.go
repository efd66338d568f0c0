package activate

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"dcfs/fs/durable"
)

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// bench is a link, a state directory and releases A, B, C.
type bench struct {
	t    *testing.T
	dir  string
	link string
	opt  Options
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	b := &bench{t: t, dir: dir, link: dir + "/current"}
	b.opt = Options{State: dir + "/state", Allowed: func(target string) error {
		if _, err := os.Stat(target); err != nil {
			return err
		}
		return nil
	}}
	for _, r := range []string{"A", "B", "C"} {
		must(t, os.Mkdir(dir+"/"+r, 0o755))
	}
	return b
}

func (b *bench) short(p string) string { return strings.TrimPrefix(strings.TrimPrefix(p, b.dir), "/") }

func (b *bench) swap(target, wantPrevious string) {
	b.t.Helper()
	got, err := Swap(b.link, b.dir+"/"+target, b.opt)
	must(b.t, err)
	if b.short(got) != wantPrevious {
		b.t.Errorf("swap to %s: previous %q, want %q", target, b.short(got), wantPrevious)
	}
	b.leads(target)
}

func (b *bench) rollback(wantNow, wantWas string) {
	b.t.Helper()
	now, was, err := Rollback(b.link, b.opt)
	must(b.t, err)
	if b.short(now) != wantNow || b.short(was) != wantWas {
		b.t.Errorf("rollback: now %q, was %q; want %q, %q", b.short(now), b.short(was), wantNow, wantWas)
	}
	b.leads(wantNow)
}

func (b *bench) leads(to string) {
	b.t.Helper()
	got, err := readLink(durable.Disk{}, b.link)
	if err != nil || got != b.dir+"/"+to {
		b.t.Errorf("the link leads to %q (%v), want %s", b.short(got), err, to)
	}
}

func TestSwapAndRollback(t *testing.T) {
	b := newBench(t)
	b.link = b.dir + "/srv/app/current" // its parents are created
	b.swap("A", "")
	if _, _, err := Rollback(b.link, b.opt); !errors.Is(err, ErrNoHistory) {
		t.Errorf("nothing to go back to: %v", err)
	}
	b.swap("A", "")
	b.swap("B", "A")
	b.swap("B", "A") // the same again keeps the older previous
	b.rollback("A", "B")
	b.rollback("B", "A")
	b.swap("C", "B")
	b.rollback("B", "C")
	b.rollback("C", "B")
	if entries, _ := os.ReadDir(filepath.Dir(b.link)); len(entries) != 2 || entries[0].Name() != ".current.swap" {
		t.Errorf("beside the link: %v", entries)
	}
}

func TestLinksMadeByHand(t *testing.T) {
	b := newBench(t)
	must(t, os.Symlink("A", b.link)) // relative
	b.swap("B", "A")
	b.rollback("A", "B")
	must(t, os.Remove(b.link), os.Symlink(b.dir+"/C", b.link))
	b.rollback("A", "C") // back to what was activated last
	must(t, os.Remove(b.link), os.Symlink(b.dir+"/C", b.link))
	b.swap("C", "A")
	b.rollback("A", "C")
	must(t, os.Remove(b.link))
	b.rollback("A", "")
}

func TestRefusals(t *testing.T) {
	b := newBench(t)
	b.swap("A", "")
	b.swap("B", "A")
	must(t, os.Remove(b.dir+"/A"))
	if _, _, err := Rollback(b.link, b.opt); !errors.Is(err, ErrIncomplete) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a previous release that is gone: %v", err)
	}
	for _, target := range []string{"A", "current", "current/x"} {
		if _, err := Swap(b.link, b.dir+"/"+target, b.opt); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s: %v", target, err)
		}
	}
	b.leads("B")
	b.opt.Force = true
	if _, err := Swap(b.link, b.link, b.opt); !errors.Is(err, ErrIncomplete) {
		t.Errorf("a loop by force: %v", err)
	}
	b.swap("A", "B")
	b.opt.Force, b.opt.Allowed = false, nil
	if _, err := Swap(b.link, b.dir+"/C", b.opt); !errors.Is(err, ErrIncomplete) {
		t.Errorf("nobody vouches: %v", err)
	}
	none := b.dir + "/new/parent/link"
	if _, err := Swap(none, b.dir+"/C", b.opt); err == nil {
		t.Error("it was swapped")
	}
	if _, err := os.Stat(b.dir + "/new"); err == nil {
		t.Error("a refused swap made the link's parent")
	}
}

func TestNotALink(t *testing.T) {
	b := newBench(t)
	b.opt.Force = true
	for _, make := range []func() error{
		func() error { return os.WriteFile(b.link, []byte("mine"), 0o600) },
		func() error { return os.Mkdir(b.link, 0o755) },
	} {
		must(t, os.RemoveAll(b.link), make())
		if _, err := Swap(b.link, b.dir+"/A", b.opt); !errors.Is(err, ErrNotLink) {
			t.Errorf("swap: %v", err)
		}
		if _, _, err := Rollback(b.link, b.opt); !errors.Is(err, ErrNotLink) {
			t.Errorf("rollback: %v", err)
		}
	}
}

func TestBusy(t *testing.T) {
	b := newBench(t)
	b.opt.Allowed = func(string) error {
		other := Options{State: b.opt.State, Force: true}
		if _, err := Swap(b.link, b.dir+"/B", other); !errors.Is(err, ErrBusy) {
			t.Errorf("two at a time: %v", err)
		}
		return nil
	}
	b.swap("A", "")
}

func TestDamagedHistory(t *testing.T) {
	b := newBench(t)
	b.swap("A", "")
	for _, bad := range []string{"", "{", `{"schema":9}`} {
		must(t, os.WriteFile(historyPath(b.opt.State, b.link), []byte(bad), 0o600))
		if _, err := Swap(b.link, b.dir+"/B", b.opt); err == nil || !strings.Contains(err.Error(), "history") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	b.leads("A")
}

// A reader that resolves the link all the time never fails.
func TestReadersNeverMissTheLink(t *testing.T) {
	b := newBench(t)
	b.swap("A", "")
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					if n == 0 {
						t.Error("the reader never ran")
					}
					return
				default:
				}
				if fi, err := os.Stat(b.link); err != nil || !fi.IsDir() {
					t.Errorf("read %d: %v", n, err)
					return
				}
			}
		})
	}
	for i := range 200 {
		b.swap([]string{"B", "A"}[i%2], []string{"A", "B"}[i%2])
	}
	close(stop)
	readers.Wait()
}
