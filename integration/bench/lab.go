package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"dcfs/integration/lab"
)

// inLab gives f hosts in network namespaces of their own and takes them away
// again. What goes wrong with them is the error, beside that of f.
func (e *env) inLab(f func(*lab.Lab) error, hosts ...string) error {
	t := &labUser{ctx: e.ctx, dir: e.dir}
	done := make(chan struct{})
	go func() { // of its own: Fatal ends it
		defer close(done)
		defer t.clean()
		t.note(f(lab.New(t, hosts...)))
	}()
	<-done
	if t.skipped != "" {
		e.out.note("%s", t.skipped)
	}
	return errors.Join(t.errs...)
}

// labUser is what the lab takes for a test. It has the methods that the lab
// calls; it is used by one goroutine.
type labUser struct {
	testing.TB // nil: only what is below may be called

	ctx      context.Context
	dir      string
	cleanups []func()
	errs     []error
	skipped  string
}

func (t *labUser) note(err error) {
	if err != nil {
		t.errs = append(t.errs, err)
	}
}

// clean does what Cleanup was told, the last first.
func (t *labUser) clean() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}

func (t *labUser) Helper()                         {}
func (t *labUser) Context() context.Context        { return t.ctx }
func (t *labUser) Cleanup(f func())                { t.cleanups = append(t.cleanups, f) }
func (t *labUser) Failed() bool                    { return len(t.errs) > 0 }
func (t *labUser) Log(args ...any)                 { fmt.Fprintln(os.Stderr, args...) }
func (t *labUser) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (t *labUser) Errorf(format string, args ...any) {
	t.note(fmt.Errorf(format, args...))
}

func (t *labUser) Fatal(args ...any) { t.Fatalf("%s", fmt.Sprint(args...)) }

func (t *labUser) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

func (t *labUser) Skipf(format string, args ...any) {
	t.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (t *labUser) TempDir() string {
	dir, err := os.MkdirTemp(t.dir, "lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { t.note(os.RemoveAll(dir)) })
	return dir
}
