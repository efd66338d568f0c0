package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func testApp() *cli.App { return newApp(io.Discard, io.Discard) }

func TestTidy(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"status", "status --"},
		{"status --json", "status --json --"},
		{"--json status", "status --json --"},
		{"--state /s status", "status --state=/s --"},
		{"-q status", "status --q --"},
		{"mount web-1 /m", "mount -- web-1 /m"},
		{"mount web-1 /m --dest /d --linger 5s", "mount --dest=/d --linger=5s -- web-1 /m"},
		{"mount --dest /d web-1 --linger=5s /m", "mount --dest=/d --linger=5s -- web-1 /m"},
		{"mount -dest /d web-1 /m", "mount --dest=/d -- web-1 /m"},
		{"mount web-1 --insecure-unsigned /m", "mount --insecure-unsigned -- web-1 /m"},
		{"mount web-1 /m --insecure-unsigned=false", "mount --insecure-unsigned=false -- web-1 /m"},
		{"mount web-1 /m --peer a:1 --peer b:2", "mount --peer=a:1 --peer=b:2 -- web-1 /m"},
		{"mount web-1 /m --origin http://o?a=b", "mount --origin=http://o?a=b -- web-1 /m"},
		{"mount --dest= web-1 /m", "mount --dest= -- web-1 /m"},
		{"mount web-1 /m --linger -5s", "mount --linger=-5s -- web-1 /m"},
		{"gc /r --keep 3", "gc --keep=3 -- /r"},
		{"gc --keep 3 /r", "gc --keep=3 -- /r"},
		{"--keep 3 gc /r", "gc --keep=3 -- /r"},
		{"demo --keep --nodes 2", "demo --keep --nodes=2 --"},
		{"--keep demo --nodes 2", "demo --keep --nodes=2 --"},
		{"mount web-1 -- --odd", "mount -- web-1 --odd"},
		{"mount -- --json /m", "mount -- --json /m"},
		{"mount - /m", "mount -- - /m"},
		{"fetch fetch status", "fetch -- fetch status"},
		{"fetch help version", "fetch -- help version"},
		{"key generate /k --json", "key generate --json -- /k"},
		{"key --json generate /k", "key generate --json -- /k"},
		{"--json key generate /k", "key generate --json -- /k"},
		{"--help", "--help"},
		{"help", "--help"},
		{"-h", "--help"},
		{"mount --help", "mount --help"},
		{"mount web-1 -h", "mount --help"},
		{"help key generate", "key generate --help"},
		{"key help", "key --help"},
		{"--version", "version --json=false"},
		{"--json --version", "version --json=true"},
		{"mount --version", "version --json=false"},
	} {
		got, err := tidy(testApp(), append([]string{"dcfs"}, strings.Fields(c.in)...))
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if want := append([]string{"dcfs"}, strings.Fields(c.want)...); !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", c.in, got, want)
		}
	}
}

func TestTidyRefuses(t *testing.T) {
	for _, c := range []struct {
		in        string
		what, try string // parts of the message and of the hint
	}{
		{"", "no command", "dcfs --help"},
		{"--json", "no command", "dcfs --help"},
		{"muont web-1 /m", `unknown command "muont"`, "dcfs mount"},
		{"key", "needs a subcommand", "dcfs key generate"},
		{"key genarate /k", `unknown command "key genarate"`, "dcfs key generate"},
		{"mount web-1 /m --linge 5s", "unknown flag --linge for mount", "--linger"},
		{"mount web-1 /m --linge=5s", "unknown flag --linge for mount", "--linger"},
		{"--jsn status", "unknown flag --jsn", "--json"},
		{"status --dest /d", "unknown flag --dest for status", "dcfs status --help"},
		{"status -x", "unknown flag -x", ""},
		{"mount web-1", `mount takes RELEASE MOUNTPOINT, but got "web-1"`, "dcfs mount --help"},
		{"mount a b c", `got "a" "b" "c"`, "dcfs mount --help"},
		{"status now", "status takes no arguments", "dcfs status --help"},
		{"status --json false", "status takes no arguments", ""},
		{"publish", "publish takes DIR, but got no arguments", ""},
		{"mount web-1 /m --dest", "flag --dest needs a value", ""},
		{"mount --dest --json web-1 /m", "flag --dest needs a value", ""},
		{"mount web-1 /m --dest --", "flag --dest needs a value", ""},
		{"completion", "takes bash|zsh|fish", ""},
	} {
		_, err := tidy(testApp(), append([]string{"dcfs"}, strings.Fields(c.in)...))
		if !errors.Is(err, errUsage) || exitCode(err) != exitUsage {
			t.Errorf("%s: %v, want a usage error", c.in, err)
			continue
		}
		if !strings.Contains(err.Error(), c.what) || !strings.Contains(hintOf(err), c.try) {
			t.Errorf("%s:\n got %v; try: %s\nwant %s; try: %s", c.in, err, hintOf(err), c.what, c.try)
		}
	}
	if _, err := tidy(testApp(), []string{"dcfs", "mount", "", "/m"}); !errors.Is(err, errUsage) {
		t.Errorf("an empty RELEASE passes: %v", err)
	}
}

// TestFlagKinds holds the commands to what lets flags stand anywhere: a name
// means the same kind in all of them, but for --keep, which the contract has in
// two kinds.
func TestFlagKinds(t *testing.T) {
	seen := map[string]bool{}
	var visit func([]*cli.Command)
	visit = func(commands []*cli.Command) {
		for _, c := range commands {
			own := map[string]bool{}
			for _, f := range c.Flags {
				_, isBool := f.(*cli.BoolFlag)
				for _, n := range f.Names() {
					if was, ok := seen[n]; ok && was != isBool && n != "keep" {
						t.Errorf("%s: --%s is a bool in one command and not in another", c.Name, n)
					}
					if own[n] {
						t.Errorf("%s: --%s twice", c.Name, n)
					}
					seen[n], own[n] = isBool, true
				}
			}
			visit(c.Subcommands)
		}
	}
	visit(testApp().Commands)
}

// TestHelpTexts: every command says what it does and how, every flag what it
// means and what it is by default.
func TestHelpTexts(t *testing.T) {
	var visit func([]*cli.Command)
	visit = func(commands []*cli.Command) {
		for _, c := range commands {
			if c.Usage == "" || len(c.Subcommands) == 0 && c.Name != "version" && !strings.Contains(c.Description, "Examples:") {
				t.Errorf("%s: usage or examples are missing", c.Name)
			}
			for _, f := range c.Flags {
				if text := f.String(); !strings.Contains(text, "(default: ") && !strings.Contains(text, "(required)") {
					t.Errorf("%s: no default: %s", c.Name, text)
				}
			}
			visit(c.Subcommands)
		}
	}
	visit(testApp().Commands)
}

// call runs a command line as main does.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(context.Background(), append([]string{"dcfs"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestHelpGoesToStdout(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"mount", "--help"}, {"mount", "a", "b", "-h"}, {"help", "key", "generate"}, {"key", "--help"}} {
		code, out, errs := call(t, args...)
		if code != 0 || !strings.Contains(out, "USAGE:") || errs != "" {
			t.Errorf("%q: code %d, stdout %.60q, stderr %q", args, code, out, errs)
		}
	}
	if _, out, _ := call(t, "key", "generate", "--help"); !strings.Contains(out, "key generate") {
		t.Errorf("help of key generate is of something else: %s", out)
	}
}

func TestBadValues(t *testing.T) {
	for _, args := range []string{
		"mount web-1 /m --linger soon",
		"mount web-1 /m --cache much",
		"mount web-1 /m --cache 20G",
		"mount web-1 /m --at-end never",
		"mount web-1 /m --detach-after later",
		"mount web-1 /m --linger -1s",
		"mount web-1 /m --max-peers -1",
		"mount web-1 /m --max-peers some",
		"mount web-1 /m --max-peers 70000",
		"deploy . --as v --hosts /dev/null",
		"mount web-1 /m --log-format xml",
		"mount web-1 /m --log-level loud",
		"mount web-1 /m --origin ftp://x",
		"mount web-1 /m --peer-listen nowhere",
		"publish .",
		"ls",
		"demo --nodes 0",
		"demo --size 1B",
		"completion tcsh",
	} {
		state := t.TempDir()
		code, out, errs := call(t, append(strings.Fields(args), "--state", state, "--run", state)...)
		if code != exitUsage || out != "" || !strings.HasPrefix(errs, "dcfs: ") {
			t.Errorf("%s: code %d, stdout %q, stderr %q", args, code, out, errs)
		}
	}
}
