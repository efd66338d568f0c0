// Command dcfs distributes release trees to a fleet: it publishes a directory
// as a signed release, serves it lazily through FUSE while it arrives from
// peers, and leaves a real copy behind.
//
// This package reads the command line, calls the packages that do the work and
// turns their errors into messages and exit codes. It must never hold logic
// that a test cannot reach without a process.
package main

import (
	"context"
	"io"
	"os"
)

func main() {
	ctx, stop := signals(context.Background())
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program without the process around it: it returns the exit
// code. Results go to stdout, logs, progress and errors to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	tidied, err := tidy(app, args)
	if err == nil {
		err = app.RunContext(ctx, tidied)
	}
	return report(ctx, stderr, err)
}
