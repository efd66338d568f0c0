package lab

import (
	"os"
	"os/exec"
	"testing"
)

// Need is something that a test cannot run without.
type Need struct {
	missing func() string // what is missing and why it matters; empty when there
	// installable says that the package manager could give it: then its absence
	// is a mistake under CI and an excuse elsewhere.
	installable bool
}

// Root is the need for root.
var Root = Need{missing: func() string {
	if os.Geteuid() != 0 {
		return "not root: namespaces and mounts need it"
	}
	return ""
}}

// FUSE is the need for a /dev/fuse that opens.
var FUSE = Need{missing: func() string {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return "no FUSE: " + err.Error()
	}
	f.Close()
	return ""
}}

// Namespaces is the need for a kernel that lets this process make network
// namespaces; containers often forbid it.
var Namespaces = Need{missing: func() string {
	if out, err := exec.Command("unshare", "--net", "true").CombinedOutput(); err != nil {
		return "no network namespaces: " + err.Error() + ": " + string(out)
	}
	return ""
}}

// Tool is the need for a program on PATH.
func Tool(name string) Need {
	return Need{installable: true, missing: func() string {
		if _, err := exec.LookPath(name); err != nil {
			return name + " is not installed; `make deps` installs it"
		}
		return ""
	}}
}

// Works is the need for a command that exits 0, such as an interpreter that can
// import a module.
func Works(what string, command ...string) Need {
	return Need{installable: true, missing: func() string {
		if err := exec.Command(command[0], command[1:]...).Run(); err != nil {
			return what + " is not installed; `make deps` installs it"
		}
		return ""
	}}
}

// Require skips the test, with the reason, when a need is not met. Under
// CI=true it fails the test instead when the package manager could have met it,
// so that a run which tests nothing is never green.
func Require(t testing.TB, needs ...Need) {
	t.Helper()
	for _, n := range needs {
		why := n.missing()
		switch {
		case why == "":
		case n.installable && os.Getenv("CI") == "true":
			t.Fatalf("missing under CI: %s", why)
		default:
			t.Skipf("skipped: %s", why)
		}
	}
}
