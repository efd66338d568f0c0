package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"dcfs/integration/lab"
)

// diagnosis is what `doctor --json` says, with its exit code.
func (n *node) diagnosis(args ...string) (levels map[string]string, ok bool, code int) {
	n.t.Helper()
	r := n.dcfs(append([]string{"doctor", "--json"}, args...)...)
	var answer struct {
		Schema int  `json:"schema"`
		OK     bool `json:"ok"`
		Checks []struct{ Name, Level, Text string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &answer); err != nil || answer.Schema != 1 {
		n.t.Fatalf("%v\n%v", err, r)
	}
	levels = map[string]string{}
	for _, c := range answer.Checks {
		if levels[c.Name] == "" || levels[c.Name] == "ok" {
			levels[c.Name] = c.Level
		}
	}
	return levels, answer.OK, r.code
}

// TestDoctor: a host that is well, and the same host with one thing wrong.
func TestDoctor(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE)
	l := lab.New(t, "origin", "host")
	o := newOrigin(t, l.Host("origin"))
	n := o.newNode(l.Host("host"))
	levels, ok, code := n.diagnosis("--origin", o.url())
	for name, level := range levels {
		// The machine's own disk and limits are what they are.
		if level != "ok" && name != "disk" && name != "limits" {
			t.Errorf("%s is %s on a host that is well", name, level)
		}
	}
	if len(levels) != 9 || !ok || code != 0 {
		t.Errorf("%v, ok %v, exit %d", levels, ok, code)
	}
	full := t.TempDir()
	must(t, syscall.Mount("tmpfs", full, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, n.Unmount(full)) })
	bad := t.TempDir()
	must(t, os.WriteFile(filepath.Join(bad, "x.pub"), []byte("x"), 0o644))
	for _, tc := range []struct {
		name string
		code int
		args []string
	}{
		{"disk", 74, []string{"--origin", o.url(), "--dest", filepath.Join(full, "copy")}},
		{"keys", 78, []string{"--origin", o.url(), "--trusted", bad}},
		{"ports", 78, []string{"--origin", o.url(), "--peer-listen", "10.99.99.99:7072"}},
		{"origin", 69, []string{"--origin", "http://" + o.Addr + ":1"}},
	} {
		levels, ok, code := n.diagnosis(tc.args...)
		if levels[tc.name] != "fail" || ok || code != tc.code {
			t.Errorf("%s: %v, ok %v, exit %d, want %d", tc.name, levels, ok, code, tc.code)
		}
	}
	n.fails(69, []string{"try:", "not fit"}, "doctor", "--origin", "http://"+o.Addr+":1")
}
