package integration

import (
	"cmp"
	"context"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// page is a Markdown file of the repository.
type page struct {
	name   string // from the root of the module
	text   string
	blocks []block
}

// block is a fenced block of a page.
type block struct {
	line   int // of its first line
	lang   string
	text   string
	excuse string // why its commands are not run here
}

// short names the page without slashes.
func (p page) short() string {
	return strings.ReplaceAll(strings.TrimSuffix(p.name, ".md"), "/", "-")
}

// docPages are README.md and every page below docs/.
func docPages(t *testing.T) (pages []page) {
	t.Helper()
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(moduleRoot, pattern))
		must(t, err)
		for _, file := range found {
			text, err := os.ReadFile(file)
			must(t, err)
			name, err := filepath.Rel(moduleRoot, file)
			must(t, err)
			p := page{name: name, text: string(text)}
			p.blocks = fenced(t, p)
			pages = append(pages, p)
		}
	}
	if len(pages) < 10 {
		t.Fatalf("only %d pages", len(pages))
	}
	return pages
}

var excused = regexp.MustCompile(`^<!-- not run: (.+) -->$`)

// fenced takes the blocks out of a page. A comment before a block says why it is
// not run.
func fenced(t *testing.T, p page) (blocks []block) {
	t.Helper()
	var b *block
	excuse := ""
	for n, line := range strings.Split(p.text, "\n") {
		mark, isMark := strings.CutPrefix(line, "```")
		switch {
		case b == nil && isMark:
			b = &block{line: n + 2, lang: mark, excuse: excuse}
		case isMark:
			blocks, b, excuse = append(blocks, *b), nil, ""
		case b != nil:
			b.text += line + "\n"
		case strings.HasPrefix(line, "    dcfs ") || strings.HasPrefix(line, "    $ "):
			t.Errorf("%s:%d: a command outside of a fenced block", p.name, n+1)
		case excused.MatchString(line):
			excuse = excused.FindStringSubmatch(line)[1]
		case strings.TrimSpace(line) != "":
			excuse = ""
		}
	}
	if b != nil {
		t.Errorf("%s:%d: a block without an end", p.name, b.line)
	}
	return blocks
}

// maxExcused is how many blocks of commands may not be run.
const maxExcused = 2

// TestDocs runs every command of every page, in the order of the page, as root
// on a machine of its own: this one's system under an overlay, which a real
// systemd boots where the page speaks to it. What a page finds there, and what
// has to be so at its end, testdata/docs has.
func TestDocs(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE, lab.Namespaces, lab.Tool("jq"), lab.Tool("curl"), lab.Tool("minisign"),
		lab.Tool("sshd"), lab.Tool("openssl"), lab.Tool("python3"), lab.Tool("make"), lab.Tool("nft"))
	packages(t) // before the pages build the same, each for itself and with an empty cache
	excuses := 0
	for _, p := range docPages(t) {
		var run []block
		for _, b := range p.blocks {
			switch {
			case b.lang == "bash" || b.lang == "shell" || b.lang == "console":
				t.Errorf("%s:%d: say sh, so that it is run", p.name, b.line)
			case b.lang == "sh" && b.excuse == "":
				run = append(run, b)
			case b.lang == "sh":
				excuses++
				t.Logf("%s:%d is not run: %s", p.name, b.line, b.excuse)
			}
		}
		if len(run) > 0 {
			t.Run(p.short(), func(t *testing.T) { runPage(t, p, run) })
		}
	}
	if excuses > maxExcused {
		t.Errorf("%d blocks are not run, %d may be", excuses, maxExcused)
	}
}

// runPage runs the blocks of one page.
func runPage(t *testing.T, p page, run []block) {
	t.Parallel()
	dir := machineDir(t)
	for _, b := range p.blocks {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("block-%d.%s", b.line, b.lang)), []byte(b.text), 0o644))
	}
	var script strings.Builder
	script.WriteString("set -euo pipefail\nMODULE=/machine/module\n. $MODULE/integration/testdata/docs/prelude.sh\n")
	own := "$MODULE/integration/testdata/docs/" + p.short() + ".sh"
	fmt.Fprintf(&script, "mkdir /root/page && cd /root/page\n! [ -e %s ] || . %s\nprepare\n", own, own)
	init := "bash"
	for _, b := range run {
		fmt.Fprintf(&script, "echo '== %s:%d'\n. /machine/block-%d.sh\n", p.name, b.line, b.line)
		if strings.Contains(b.text, "systemctl") {
			init = "systemd"
		}
	}
	script.WriteString("echo '== check'\ncheck\necho '== done'\n")
	must(t, os.WriteFile(filepath.Join(dir, "page.sh"), []byte(script.String()), 0o644))
	must(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	copyFile(t, dcfsBinary(t), filepath.Join(dir, "bin/dcfs"))
	if init == "systemd" {
		if _, err := os.Stat("/usr/lib/systemd/systemd"); err != nil {
			t.Skip("systemd is not installed: the page's commands are not run")
		}
		for _, file := range packages(t) {
			copyFile(t, file, filepath.Join(dir, filepath.Base(file)))
		}
	}
	onMachine(t, dir, init, "/machine/page.sh")
}

// machineDir makes the directory of a machine, on which the module is at
// /machine/module.
func machineDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "machine")
	must(t, os.MkdirAll(filepath.Join(dir, "module"), 0o755))
	return dir
}

// onMachine runs a script on a machine of its own; see testdata/machine.sh. The
// script has to come to its last line, which says that it is done.
func onMachine(t *testing.T, dir, init, script string) {
	t.Helper()
	machine, err := filepath.Abs("testdata/machine.sh")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", machine, dir, init, "bash", script)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\n== done\n") {
		t.Errorf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// TestDocsTellOfEveryError: docs/recovery.md has every exit code and every log
// message above INFO, and no message that there is not.
func TestDocsTellOfEveryError(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(moduleRoot, "docs/recovery.md"))
	must(t, err)
	codes, err := os.ReadFile(filepath.Join(moduleRoot, "cmd/dcfs/exit.go"))
	must(t, err)
	found := regexp.MustCompile(`(?m)^\texit\w+ += (\d+) `).FindAllSubmatch(codes, -1)
	if len(found) < 10 {
		t.Fatalf("only %d exit codes", len(found))
	}
	for _, code := range found {
		if c := string(code[1]); c != "0" && c != "128" && !strings.Contains(string(text), "\n### "+c+":") {
			t.Errorf("docs/recovery.md does not tell of exit code %s", c)
		}
	}
	messages := logMessages(t)
	if len(messages) < 40 {
		t.Fatalf("only %d log messages", len(messages))
	}
	for m, where := range messages {
		if !strings.Contains(string(text), "`"+m+"`") {
			t.Errorf("docs/recovery.md does not tell of %q (%s)", m, where)
		}
	}
	_, tables, ok := strings.Cut(string(text), "\n## By log message\n")
	if !ok {
		t.Fatal("docs/recovery.md has no list of messages")
	}
	for line := range strings.Lines(tables) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || strings.Contains(cells[1], "---") || !strings.Contains(cells[1], "`") {
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			if _, ok := messages[m[1]]; !ok && !strings.Contains(cells[1], "`"+m[1]+"` (") {
				t.Errorf("docs/recovery.md tells of %q, which nothing logs", m[1])
			}
		}
	}
}

// logMessages are the texts that the program logs as warnings and errors, and
// where.
func logMessages(t *testing.T) map[string]string {
	t.Helper()
	direct := regexp.MustCompile(`[lL]og\.(?:Warn|Error)\("((?:[^"\\]|\\.)+)"`)
	named := regexp.MustCompile(`[lL]og\.(?:Warn|Error)\((\w+),`) // by a constant or a variable
	messages := map[string]string{}
	for _, dir := range []string{"cmd", "swarm", "fs", "cache"} {
		err := filepath.WalkDir(filepath.Join(moduleRoot, dir), func(path string, _ os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			found := direct.FindAllSubmatch(text, -1)
			for _, m := range named.FindAllSubmatch(text, -1) {
				is := regexp.MustCompile(`\b` + string(m[1]) + ` *:?= "((?:[^"\\]|\\.)+)"`)
				found = append(found, is.FindAllSubmatch(text, -1)...)
			}
			for _, m := range found {
				messages[string(m[1])] = path
			}
			return nil
		})
		must(t, err)
	}
	return messages
}

// TestDocsNames: the commands and flags that pages name are those of the program,
// and their links lead somewhere.
func TestDocsNames(t *testing.T) {
	flags := programFlags(t)
	code := regexp.MustCompile("(?s)```.*?```|`[^`]+`")
	word := regexp.MustCompile(`(^|[\s"'\x60=\[(])(--[a-z][a-z-]+)`)
	command := regexp.MustCompile("(?:^|`|\\n)dcfs ([a-z]+)")
	for _, p := range docPages(t) {
		for _, span := range code.FindAllString(p.text, -1) {
			if m := command.FindStringSubmatch(span); m != nil && flags[m[1]] == nil {
				t.Errorf("%s: there is no dcfs %s: %s", p.name, m[1], span)
			}
			for _, m := range word.FindAllStringSubmatch(span, -1) {
				if !knownFlag(flags, m[2]) && !foreignFlags[m[2]] {
					t.Errorf("%s: no command has the flag %s: %s", p.name, m[2], span)
				}
			}
		}
		checkLinks(t, p)
	}
}

// foreignFlags are flags of other programs that pages name.
var foreignFlags = map[string]bool{
	"--line-buffered": true, "--now": true, "--reinstall": true, "--sparse": true,
}

func knownFlag(flags map[string]map[string]bool, name string) bool {
	for _, of := range flags {
		if of[name] {
			return true
		}
	}
	return false
}

// programFlags are the flags of each command, by its help.
func programFlags(t *testing.T) map[string]map[string]bool {
	t.Helper()
	help := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), dcfsBinary(t), append(args, "--help")...).Output()
		must(t, err)
		return string(out)
	}
	_, list, _ := strings.Cut(help(), "COMMANDS:")
	flags := map[string]map[string]bool{"help": {}}
	for _, m := range regexp.MustCompile(`(?m)^   ([a-z]+)(?:, [a-z]+)?  `).FindAllStringSubmatch(list, -1) {
		flags[m[1]] = map[string]bool{"--version": true, "--help": true}
		for _, f := range regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z-]+)`).FindAllStringSubmatch(help(m[1]), -1) {
			flags[m[1]][f[1]] = true
		}
	}
	if len(flags) < 15 || !flags["mount"]["--linger"] {
		t.Fatalf("the help is not understood: %v", flags)
	}
	return flags
}

// checkLinks looks for what the links of a page lead to: files, and headings.
func checkLinks(t *testing.T, p page) {
	t.Helper()
	fences := regexp.MustCompile("(?s)```.*?```")
	for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(fences.ReplaceAllString(p.text, ""), -1) {
		target, anchor, _ := strings.Cut(m[1], "#")
		if strings.Contains(target, "://") {
			continue
		}
		file, text := filepath.Join(moduleRoot, filepath.Dir(p.name), target), p.text
		if target != "" {
			b, err := os.ReadFile(file)
			if info, e := os.Stat(file); err != nil && (e != nil || !info.IsDir()) {
				t.Errorf("%s: the link to %s leads nowhere", p.name, m[1])
				continue
			}
			text = string(b)
			if strings.HasSuffix(target, ".svg") {
				must(t, xml.Unmarshal(b, new(struct{})))
			}
		}
		if anchor != "" && !slices.Contains(headings(fences.ReplaceAllString(text, "")), anchor) {
			t.Errorf("%s: %s has no heading for the link to %s", p.name, cmp.Or(target, "it"), m[1])
		}
	}
}

// headings are the anchors that a page's headings have.
func headings(text string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		kept := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(kept, " ", "-"))
	}
	return all
}
