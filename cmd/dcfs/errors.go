package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"dcfs/swarm/metainfo"
)

// hinter is an error that knows the next thing to try. Any package may return
// one; most say it in their text.
type hinter interface {
	error
	Hint() string
}

// hinted adds the next thing to try to an error.
type hinted struct {
	error
	hint string
}

func (h hinted) Hint() string  { return h.hint }
func (h hinted) Unwrap() error { return h.error }

// errUsage is the kind of every mistake on the command line.
var errUsage = errors.New("usage")

// usageError is a mistake on the command line; its text needs no "usage:".
type usageError string

func (u usageError) Error() string        { return string(u) }
func (u usageError) Is(target error) bool { return target == errUsage }

func usage(what, try string) error {
	return hinted{usageError(what), try}
}

// onUsageError is for what cli itself finds: values that do not parse.
func onUsageError(c *cli.Context, err error, _ bool) error {
	return usage(err.Error(), helpOf(c))
}

// complain prints err as `dcfs: <what>: <why>` and, where one is known, the
// next thing to try.
func complain(w io.Writer, err error) {
	var s interface{ Silent() bool }
	if errors.As(err, &s) && s.Silent() {
		return // whoever failed has said so
	}
	w = legible{w}
	fmt.Fprintf(w, "dcfs: %v\n", err)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(w, "try: %s\n", hint)
	}
}

func hintOf(err error) string {
	var h hinter
	if errors.As(err, &h) {
		return h.Hint()
	}
	if errors.Is(err, metainfo.ErrInvalid) {
		return "another source of the release, or dcfs publish again: no dcfs wrote this"
	}
	return ""
}
