package activate

import (
	"errors"
	"os"
	"testing"

	"dcfs/fs/durable"
)

// order makes later calls part of the order with this epoch.
func (b *bench) order(epoch int64) { b.opt.Epoch = epoch }

func (b *bench) fenced(target string) {
	b.t.Helper()
	if _, err := Swap(b.link, b.dir+"/"+target, b.opt); !errors.Is(err, ErrFenced) {
		b.t.Errorf("swap to %s with epoch %d: %v, want ErrFenced", target, b.opt.Epoch, err)
	}
}

func (b *bench) takeBack(wantNow, wantWas string) {
	b.t.Helper()
	now, was, err := TakeBack(b.link, b.opt)
	must(b.t, err)
	if b.short(now) != wantNow || b.short(was) != wantWas {
		b.t.Errorf("take back: now %q, was %q; want %q, %q", b.short(now), b.short(was), wantNow, wantWas)
	}
	if wantNow != "" {
		b.leads(wantNow)
	} else if _, err := os.Lstat(b.link); !errors.Is(err, os.ErrNotExist) {
		b.t.Errorf("the link is still there: %v", err)
	}
}

func TestOrders(t *testing.T) {
	b := newBench(t)
	b.order(10)
	b.swap("A", "")
	b.swap("A", "") // once more
	b.order(9)
	b.fenced("B")
	b.order(11)
	b.swap("B", "A")
	b.takeBack("A", "B")
	b.takeBack("A", "A") // nothing is left to undo
	b.fenced("B")        // the order was on its way, and comes now
	b.leads("A")
	if f, err := Inspect(b.link, b.opt); err != nil || f.Epoch != 11 || f.Target != b.dir+"/A" || f.Link != b.link {
		t.Errorf("%+v, %v", f, err)
	}
	b.order(12)
	b.swap("C", "A")
	b.order(0)
	b.rollback("A", "C")
	b.order(12)
	b.fenced("C") // somebody took it back by hand
	b.takeBack("A", "A")
	b.order(11)
	if _, _, err := TakeBack(b.link, b.opt); !errors.Is(err, ErrFenced) {
		t.Errorf("taking back an old order: %v", err)
	}
}

// TestTakeBackOfTheFirst: where nothing was before, nothing is afterwards.
func TestTakeBackOfTheFirst(t *testing.T) {
	b := newBench(t)
	b.order(1)
	b.swap("A", "")
	b.takeBack("", "A")
	b.fenced("A")
	b.order(2)
	b.swap("A", "")
}

// TestTakeBackBeforeTheOrder: an order that is taken back before it arrives
// does nothing when it does.
func TestTakeBackBeforeTheOrder(t *testing.T) {
	b := newBench(t)
	b.swap("A", "")
	b.order(5)
	b.takeBack("A", "A")
	b.fenced("B")
	b.leads("A")
	b.order(0)
	b.swap("B", "A") // by hand
}

// TestOrderAgain: who gave the first order did not live to see that its health
// check fails; the second one goes back to the same.
func TestOrderAgain(t *testing.T) {
	b := newBench(t)
	b.swap("A", "")
	b.order(5)
	b.swap("B", "A")
	b.order(6)
	b.swap("B", "A")
	b.takeBack("A", "B")
}

// TestTakeBackSwept fails each call of a TakeBack once: the link leads to the
// one or the other, and the next TakeBack does it.
func TestTakeBackSwept(t *testing.T) {
	for _, first := range []bool{false, true} {
		for fail := 1; ; fail++ {
			b := newBench(t)
			want := ""
			if !first {
				b.swap("A", "")
				want = "A"
			}
			b.order(7)
			b.swap("B", want)
			calls, boom := 0, errors.New("boom")
			b.opt.Disk = durable.Disk{Before: func(string, string) error {
				if calls++; calls == fail {
					return boom
				}
				return nil
			}}
			_, _, err := TakeBack(b.link, b.opt)
			if calls < fail {
				must(t, err)
				if fail < 8 {
					t.Errorf("only %d calls could fail", calls)
				}
				break
			}
			if err != nil && !errors.Is(err, boom) {
				t.Fatal(err)
			}
			if got, err := os.Readlink(b.link); err == nil && got != b.dir+"/B" && got != b.dir+"/"+want {
				t.Errorf("call %d failed: the link leads to %s", fail, got)
			}
			b.opt.Disk = durable.Disk{}
			_, _, err = TakeBack(b.link, b.opt)
			must(t, err)
			if got, _ := os.Readlink(b.link); b.short(got) != want {
				t.Errorf("call %d failed, and again: the link leads to %q", fail, got)
			}
		}
	}
}
