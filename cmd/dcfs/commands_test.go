package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
	"go.uber.org/goleak"

	"dcfs/cmd/internal/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStatusOfNothing(t *testing.T) {
	for _, run := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing")} {
		code, out, errs := call(t, "status", "--json", "--run", run)
		if code != 0 || out != `{"schema":1,"processes":[]}`+"\n" || errs != "" {
			t.Errorf("code %d, stdout %q, stderr %q", code, out, errs)
		}
	}
}

func TestCompletionSyntax(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	_, script, _ := call(t, "completion", "bash")
	file := filepath.Join(t.TempDir(), "dcfs.bash")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(bash, "-n", file).CombinedOutput(); err != nil {
		t.Fatalf("bash -n: %v\n%s", err, out)
	}
	for _, c := range []struct{ words, want, not string }{
		{"dcfs mo", "mount", "status"},
		{"dcfs mount --lin", "--linger", "--listen"},
		{"dcfs origin --lis", "--listen", "--linger"},
		{"dcfs key gen", "generate", "mount"},
		{"dcfs mount web-1 /m --detach", "--detach-after", ""},
		{"dcfs completion z", "zsh", "bash"},
		{"dcfs --js", "", "--json"},
	} {
		words := strings.Fields(c.words)
		got := complete(t, bash, file, words)
		if !strings.Contains(got, c.want) || c.not != "" && strings.Contains(got, c.not) {
			t.Errorf("%s: %q, want %q and not %q", c.words, got, c.want, c.not)
		}
	}
}

// complete asks the script for the last word, as an interactive bash does.
func complete(t *testing.T, bash, file string, words []string) string {
	t.Helper()
	cmd := exec.Command(bash, "-c", `source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _dcfs; echo "${COMPREPLY[*]}"`)
	cmd.Args = append(cmd.Args, append([]string{file}, words...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v", words, err)
	}
	return string(out)
}

func TestCompletionOfOtherShells(t *testing.T) {
	for _, shell := range []string{"zsh", "fish"} {
		code, out, _ := call(t, "completion", shell)
		if code != 0 || !strings.Contains(out, "rollback") {
			t.Errorf("%s: code %d, %.80q", shell, code, out)
		}
	}
}

func TestMan(t *testing.T) {
	code, out, _ := call(t, "man")
	if code != 0 || !strings.Contains(out, ".SH COMMANDS") || !strings.Contains(out, "read-timeout") {
		t.Errorf("code %d, %.200q", code, out)
	}
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version", "--json"}, {"--version", "--json"}} {
		code, out, _ := call(t, args...)
		var v struct {
			Schema  int
			Version string
		}
		if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 || v.Schema != 1 || v.Version == "" {
			t.Errorf("%q: code %d, %q, %v", args, code, out, err)
		}
	}
}

func TestKeyGenerate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "release")
	code, out, errs := call(t, "key", "generate", path, "--json")
	if code != 0 || !strings.Contains(out, `"schema":1`) {
		t.Fatalf("code %d, %s%s", code, out, errs)
	}
	if fi, err := os.Stat(path + ".key"); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
	if code, _, _ := call(t, "key", "generate", path); code != exitExists {
		t.Errorf("a second time: code %d, want %d", code, exitExists)
	}
}

// TestPrecedence: flag over environment, that over file, file over default.
func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dcfs.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, file, env string
		args            []string
		want            string
	}{
		{name: "default", want: "30s"},
		{name: "file", file: "linger: 1m", want: "1m0s"},
		{name: "environment over file", file: "linger: 1m", env: "2m", want: "2m0s"},
		{name: "environment over default", env: "2m", want: "2m0s"},
		{name: "flag over all", file: "linger: 1m", env: "2m", args: []string{"--linger", "3m"}, want: "3m0s"},
		{name: "flag that is the default", file: "linger: 1m", env: "2m", args: []string{"--linger", "30s"}, want: "30s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(c.file)
			t.Setenv("DCFS_LINGER", c.env)
			got := settled(t, file, c.args, func(c *cli.Context) string { return c.Duration("linger").String() })
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	write("origin:\n  - http://a:1\n  - http://b:2\n")
	origins := func(c *cli.Context) string {
		list, err := originsOf(c)
		if err != nil {
			t.Error(err)
		}
		return strings.Join(list, " ")
	}
	if got := settled(t, file, nil, origins); got != "http://a:1 http://b:2" {
		t.Errorf("list from the file: %q", got)
	}
	t.Setenv("DCFS_ORIGIN", "http://c:3,http://d:4")
	if got := settled(t, file, nil, origins); got != "http://c:3 http://d:4" {
		t.Errorf("list from the environment: %q", got)
	}
	if got := settled(t, file, []string{"--origin", "http://e:5"}, origins); got != "http://e:5" {
		t.Errorf("list from the flag: %q", got)
	}
}

// settled is what a setting of mount is when its action starts.
func settled(t *testing.T, file string, args []string, get func(*cli.Context) string) (got string) {
	t.Helper()
	app := testApp()
	for _, c := range app.Commands {
		if c.Name == "mount" {
			c.Action = func(ctx *cli.Context) error { got = get(ctx); return nil }
		}
	}
	line := append([]string{"dcfs", "mount", "r", "/m", "--config", file}, args...)
	tidied, err := tidy(app, line)
	if err == nil {
		err = app.Run(tidied)
	}
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestBadConfiguration(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "dcfs.yaml")
	for _, text := range []string{"lingre: 1m", "linger: soon", "- a\n- b", "linger: 1m\nlinger: 2m"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, errs := call(t, "status", "--config", file, "--run", dir); code != exitConfig {
			t.Errorf("%q: code %d, %s", text, code, errs)
		}
	}
	if code, _, _ := call(t, "status", "--config", filepath.Join(dir, "none"), "--run", dir); code != exitConfig {
		t.Errorf("a missing --config: code %d", code)
	}
	t.Setenv("DCFS_LINGER", "soon")
	if code, _, errs := call(t, "fetch", "r", "/d"); code != exitConfig || !strings.Contains(errs, "DCFS_LINGER") {
		t.Errorf("a bad variable: code %d, %s", code, errs)
	}
}

func TestLogsGoToStderrInTheirFormat(t *testing.T) {
	app := testApp()
	var buf bytes.Buffer
	app.Commands[0].Subcommands[0].Action = func(c *cli.Context) error {
		log, err := logger(c, &buf)
		if err != nil {
			return err
		}
		log.Info("not with --quiet")
		log.Error("hello", "n", 1)
		return nil
	}
	line, err := tidy(app, []string{"dcfs", "key", "generate", "x", "--log-format", "json", "--quiet"})
	if err == nil {
		err = app.Run(line)
	}
	if err != nil {
		t.Fatal(err)
	}
	var rec map[string]any
	if err := json.Unmarshal(buf.Bytes(), &rec); err != nil || rec["msg"] != "hello" {
		t.Errorf("%v: %s", err, buf.String())
	}
}

// TestPublishOrigins: a --state that was typed wins over an origin that was not.
func TestPublishOrigins(t *testing.T) {
	t.Setenv("DCFS_ORIGIN", "http://env:1")
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "http://env:1"},
		{[]string{"--origin", "http://typed:1"}, "http://typed:1"},
		{[]string{"--state", "/s"}, ""},
		{[]string{"--state", "/s", "--origin", "http://typed:1"}, "refused"},
	} {
		app := testApp()
		var got string
		for _, cmd := range app.Commands {
			if cmd.Name == "publish" {
				cmd.Action = func(c *cli.Context) error {
					origins, err := publishOrigins(c)
					got = strings.Join(origins, " ")
					if err != nil {
						got = "refused"
					}
					return nil
				}
			}
		}
		line, err := tidy(app, append([]string{"dcfs", "publish", "."}, c.args...))
		if err == nil {
			err = app.Run(line)
		}
		if err != nil || got != c.want {
			t.Errorf("%q: %q, %v; want %q", c.args, got, err, c.want)
		}
	}
}

// TestLegible: what others say does not reach the terminal as anything but text.
func TestLegible(t *testing.T) {
	var out bytes.Buffer
	complain(&out, errors.New("a host says \x1b[31mred\a\u009b2J\tand\nmore"))
	if got, want := out.String(), "dcfs: a host says \uFFFD[31mred\uFFFD\uFFFD2J\tand\nmore\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	out.Reset()
	if err := statusTable(legible{&out}, []control.Status{{Version: "v\x1b]0;x\a", Reason: "r\x1b[2J"}}); err != nil || strings.ContainsRune(out.String(), 0x1b) {
		t.Errorf("%q, %v", out.String(), err)
	}
}
