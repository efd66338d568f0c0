// Package compare says how two directory trees differ, by tools that have
// nothing to do with the product under test: rsync reads the content, modes,
// owners, hard links, ACLs and extended attributes, and find reads what rsync
// rounds or leaves out.
//
// It must never write to either tree, follow a link out of one, or import
// anything of the product that it judges.
package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// maxLines bounds a report: two unrelated trees would fill the log.
const maxLines = 40

// Same compares everything: names, types, content, modes, owners, times in
// nanoseconds, symlink targets, hard links, ACLs and extended attributes. It
// returns one line for each difference, and nil when there is none. The error
// says that the comparison itself failed.
func Same(ctx context.Context, want, got string) ([]string, error) {
	diff, err := rsync(ctx, "-aHAXni", want, got)
	if err != nil {
		return nil, err
	}
	listed, err := listings(ctx, want, got, nil,
		// A directory's size and link count are matters of its filesystem.
		`-type`, `d`, `-printf`, `%P\t%y\t%m\t%U:%G\t%T@\0`, `-o`,
		`-printf`, `%P\t%y\t%m\t%U:%G\t%T@\t%n\t%s\t%l\0`)
	return bound(append(diff, listed...)), err
}

// Content compares only the regular files, by name and content, for copies made
// by tools that know no more. The exclude patterns are rsync's, anchored by a
// leading slash; they hold for directories with all that is below.
func Content(ctx context.Context, want, got string, exclude ...string) ([]string, error) {
	options := []string{"-rni", "--no-links", "--prune-empty-dirs"}
	for _, x := range exclude {
		options = append(options, "--exclude="+x)
	}
	diff, err := rsync(ctx, options[0], want, got, options[1:]...)
	if err != nil {
		return nil, err
	}
	listed, err := listings(ctx, want, got, exclude,
		`-type`, `f`, `-printf`, `%P\t%y\t%s\0`)
	return bound(append(diff, listed...)), err
}

// rsync returns what it would do to make got like want.
func rsync(ctx context.Context, flags, want, got string, more ...string) ([]string, error) {
	args := append([]string{flags, "--checksum", "--delete"}, more...)
	out, err := run(ctx, "rsync", append(args, "--", want+"/", got+"/")...)
	if err != nil {
		return nil, err
	}
	var diff []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimRight(line, "\n"); line != "" && !strings.HasPrefix(line, "skipping non-regular") {
			diff = append(diff, "rsync: "+line)
		}
	}
	return diff, nil
}

// listings compares what find prints about both trees: records that end in NUL
// and start with the relative path.
func listings(ctx context.Context, want, got string, exclude []string, expression ...string) ([]string, error) {
	var lists [2][]string
	for i, dir := range []string{want, got} {
		out, err := run(ctx, "find", append([]string{dir + "/"}, expression...)...)
		if err != nil {
			return nil, err
		}
		list := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
		list = slices.DeleteFunc(list, func(s string) bool { return s == "" || excluded(s, exclude) })
		slices.Sort(list)
		lists[i] = list
	}
	return lineDiff(lists[0], lists[1]), nil
}

// excluded knows the two forms of pattern that the tests use: /PATH, anchored,
// and NAME, anywhere.
func excluded(record string, patterns []string) bool {
	path, _, _ := strings.Cut(record, "\t")
	for _, p := range patterns {
		if anchored, ok := strings.CutPrefix(p, "/"); ok {
			if path == anchored || strings.HasPrefix(path, anchored+"/") {
				return true
			}
		} else if slices.Contains(strings.Split(path, "/"), p) {
			return true
		}
	}
	return false
}

// lineDiff reports what only one of two sorted lists holds.
func lineDiff(want, got []string) []string {
	var diff []string
	for len(want) > 0 || len(got) > 0 {
		switch {
		case len(got) == 0 || len(want) > 0 && want[0] < got[0]:
			diff = append(diff, fmt.Sprintf("find: want %q", want[0]))
			want = want[1:]
		case len(want) == 0 || got[0] < want[0]:
			diff = append(diff, fmt.Sprintf("find: got  %q", got[0]))
			got = got[1:]
		default:
			want, got = want[1:], got[1:]
		}
	}
	return diff
}

func bound(lines []string) []string {
	if n := len(lines) - maxLines; n > 0 {
		lines = append(lines[:maxLines], fmt.Sprintf("and %d more", n))
	}
	return lines
}

func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C", "TZ=UTC")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err),
			errors.New(stderr.String()))
	}
	return out, nil
}
