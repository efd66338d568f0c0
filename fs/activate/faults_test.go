package activate

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"dcfs/fs/durable"
	"dcfs/fs/durable/faults"
)

var update = flag.Bool("update", false, "write the golden files anew")

// turn is one move of a link, from B, with A before it, to another release.
type turn struct {
	to  string                               // where it leads
	act func(link string, opt Options) error // moves it
}

func options(dir string, disk durable.Disk) Options {
	return Options{State: dir + "/state", Disk: disk, Allowed: func(target string) error {
		_, err := os.Stat(target)
		return err
	}}
}

func swapTo(to string) turn {
	return turn{to, func(link string, opt Options) error {
		_, err := Swap(link, link[:len(link)-len("current")]+to, opt)
		return err
	}}
}

// rollback goes back, and when it has been cut off looks at the link first, as
// an operator does: a second Rollback would lead forward again.
var rollback = turn{"A", func(link string, opt Options) error {
	if to, err := os.Readlink(link); err != nil || to == link[:len(link)-len("current")]+"A" {
		return errors.Join(err, swapTo("A").act(link, opt))
	}
	_, _, err := Rollback(link, opt)
	return err
}}

func (s turn) job() faults.Job {
	return faults.Job{
		Prepare: func(t *testing.T, dir string) {
			for _, r := range []string{"A", "B", "C"} {
				must(t, os.Mkdir(dir+"/"+r, 0o755), os.WriteFile(dir+"/"+r+"/file", []byte(r), 0o644))
			}
			for _, to := range []string{"A", "B"} {
				must(t, swapTo(to).act(dir+"/current", options(dir, durable.Disk{})))
			}
		},
		Run:   func(dir string, disk durable.Disk) error { return s.act(dir+"/current", options(dir, disk)) },
		Holds: func(t *testing.T, dir string) { s.holds(t, dir) },
		Done:  s.done,
	}
}

// holds: the link resolves, to the old release or the new, these are untouched,
// and it is known where it led before.
func (s turn) holds(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(dir + "/current/file")
	to := string(b)
	if err != nil || to != "B" && to != s.to {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	for _, r := range []string{"A", "B", "C"} {
		if b, err := os.ReadFile(dir + "/" + r + "/file"); string(b) != r {
			t.Errorf("release %s holds %q, %v", r, b, err)
		}
	}
	err = withLink(dir+"/current", options(dir, durable.Disk{}), func(l *pointer) error {
		want := dir + map[bool]string{true: "/A", false: "/B"}[to == "B"]
		if got := l.previous(); got != want {
			return fmt.Errorf("before %s it led to %s, says the history, and not %s", to, got, want)
		}
		return nil
	})
	must(t, err)
	return to
}

func (s turn) done(t *testing.T, dir string) {
	t.Helper()
	if to := s.holds(t, dir); to != s.to {
		t.Errorf("the link leads to %s, not %s", to, s.to)
	}
	if back, err := os.Readlink(dir + "/.current.swap"); err != nil || back != dir+"/B" {
		t.Errorf("beside the link is %q, %v, and not the way back", back, err)
	}
}

// Every single call of a swap and of a rollback fails once, in every way that a
// disk can fail.
func TestEveryFault(t *testing.T) {
	t.Run("swap", func(t *testing.T) { faults.Sweep(t, swapTo("C").job()) })
	t.Run("rollback", func(t *testing.T) { faults.Sweep(t, rollback.job()) })
}

// The process is killed before and after every single change.
func TestSwapKilled(t *testing.T)     { faults.Kill(t, swapTo("C").job()) }
func TestRollbackKilled(t *testing.T) { faults.Kill(t, rollback.job()) }

// A kill says nothing about power: what the order of writes and syncs is then
// for. The history is on the disk before the link moves.
func TestGolden(t *testing.T) {
	dir := faults.Dir(t)
	job := swapTo("C").job()
	job.Prepare(t, dir)
	log := faults.NewLog(dir+"/state", "STATE", dir+"/current", "LINK", dir+"/.current", "PARENT/.LINK", dir, "PARENT")
	must(t, job.Run(dir, log.Disk()))
	log.Golden(t, "testdata/swap.golden", *update)
}

// A swap that is made again makes the link last, which the one before may not
// have come to.
func TestSwapAgainSyncs(t *testing.T) {
	dir := faults.Dir(t)
	job := swapTo("C").job()
	job.Prepare(t, dir)
	must(t, job.Run(dir, durable.Disk{}))
	synced := false
	must(t, job.Run(dir, durable.Disk{Before: func(op, path string) error {
		synced = synced || op == "fsync" && path == dir
		return nil
	}}))
	if !synced {
		t.Error("the link's directory was not synced")
	}
}
