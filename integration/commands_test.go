package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"dcfs/integration/compare"
	"dcfs/integration/lab"
)

// TestCommands runs the scripts in testdata/script, each in a host of its own,
// so that every script may use the default ports.
//
// Beside testscript's commands they have:
//
//	exits CODE[|CODE] PROGRAM [ARG...]  runs it; the exit code must be that
//	json FIELD VALUE                    the JSON on stdout has it
//	ready URL                           waits until it answers 200
//	get URL FILE                        saves what it answers with 200
//	state VERSION STATE                 waits for it in `dcfs status --json`
//	gone VERSION                        waits until no process has it
//	same WANT GOT                       compares two trees completely
//	flip FILE                           changes a byte, keeps size and times
//	resolves LINK TARGET                where the symlink points
//	nomounts                            no mount is left in $WORK
func TestCommands(t *testing.T) {
	lab.Require(t, lab.Root)
	bin := dcfsBinary(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               func(env *testscript.Env) error { return setupScript(env, bin) },
		Condition:           scriptCondition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    scriptExits,
			"json":     scriptJSON,
			"ready":    scriptReady,
			"get":      scriptGet,
			"state":    scriptState,
			"gone":     scriptGone,
			"same":     scriptSame,
			"flip":     scriptFlip,
			"resolves": scriptResolves,
			"nomounts": scriptNoMounts,
		},
	})
}

type hostKey struct{}

// setupScript puts the script into a host: `dcfs` on its PATH is a wrapper that
// enters the host's network first.
func setupScript(env *testscript.Env, bin string) error {
	t := env.T().(testing.TB)
	h := lab.New(t, "one").Host("one")
	env.Values[hostKey{}] = h
	// Some scripts run as nobody, who must get here.
	if err := os.Chmod(filepath.Dir(env.WorkDir), 0o711); err != nil {
		return err
	}
	wrapper := filepath.Join(h.Dir, "bin", "dcfs")
	if err := os.MkdirAll(filepath.Dir(wrapper), 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("#!/bin/sh\nexec %s %s \"$@\"\n", strings.Join(h.Enter(), " "), bin)
	if err := os.WriteFile(wrapper, []byte(text), 0o755); err != nil {
		return err
	}
	env.Vars = slices.DeleteFunc(env.Vars, func(kv string) bool { return strings.HasPrefix(kv, "DCFS_") })
	for k, v := range map[string]string{
		"PATH": filepath.Dir(wrapper) + ":" + os.Getenv("PATH"),
		"BIN":  bin,
		"ADDR": h.Addr, "ORIGIN": "http://" + h.Addr + ":" + originPort,
		"DCFS_STATE":   filepath.Join(env.WorkDir, "state"),
		"DCFS_RUN":     filepath.Join(env.WorkDir, "run"),
		"DCFS_TRUSTED": filepath.Join(env.WorkDir, "trusted"),
	} {
		env.Setenv(k, v)
	}
	env.Defer(func() {
		for _, m := range h.MountsBelow(env.WorkDir) {
			t.Errorf("mount %s is left", m)
			h.Unmount(m)
		}
	})
	return nil
}

func scriptCondition(cond string) (bool, error) {
	if cond == "fuse" {
		f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		return err == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

func scriptHost(ts *testscript.TestScript) *lab.Host { return ts.Value(hostKey{}).(*lab.Host) }

// usage ends a script whose line has a form that the command does not know.
func usage(ts *testscript.TestScript, neg bool, ok bool, form string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", form)
	}
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "exits CODE[|CODE] PROGRAM [ARG...]")
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if !slices.Contains(strings.Split(args[0], "|"), fmt.Sprint(code)) {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// scriptJSON compares one field, dots between levels, as it is written in JSON;
// a string may lack its quotes. "*" is any value.
func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "json FIELD VALUE")
	text := ts.ReadFile("stdout")
	var doc any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		ts.Fatalf("stdout is not one JSON document: %v\n%s", err, text)
	}
	for name := range strings.SplitSeq(args[0], ".") {
		object, _ := doc.(map[string]any)
		value, ok := object[name]
		if !ok {
			ts.Fatalf("no %q in %s", args[0], text)
		}
		doc = value
	}
	got, err := json.Marshal(doc)
	ts.Check(err)
	if s, ok := doc.(string); ok && s == args[1] || args[1] == "*" || string(got) == args[1] {
		return
	}
	ts.Fatalf("%s is %s, want %s", args[0], got, args[1])
}

func scriptReady(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "ready URL")
	client := scriptHost(ts).Client()
	wait(ts, args[0]+" to answer", func() (bool, error) {
		resp, err := client.Get(args[0])
		if err != nil {
			return false, nil
		}
		resp.Body.Close()
		return resp.StatusCode == 200, nil
	})
}

func scriptGet(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "get URL FILE")
	resp, err := scriptHost(ts).Client().Get(args[0])
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if resp.StatusCode != 200 {
		ts.Fatalf("%s: %s", resp.Status, body)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), body, 0o644))
}

// scriptStatus is `dcfs status --json` for one version; empty when there is none.
func scriptStatus(ts *testscript.TestScript, version string) (status, error) {
	ts.Check(ts.Exec("dcfs", "status", "--json"))
	var answer struct{ Processes []status }
	if err := json.Unmarshal([]byte(ts.ReadFile("stdout")), &answer); err != nil {
		return status{}, err
	}
	for _, s := range answer.Processes {
		if s.Version == version {
			return s, nil
		}
	}
	return status{}, nil
}

func scriptState(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2 && stateRank[args[1]] > 0, "state VERSION STATE")
	wait(ts, args[0]+" to be "+args[1], func() (bool, error) {
		s, err := scriptStatus(ts, args[0])
		if s.State == "failed" {
			return false, errors.New("failed: " + s.Reason)
		}
		return stateRank[s.State] >= stateRank[args[1]], err
	})
}

func scriptGone(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "gone VERSION")
	wait(ts, args[0]+" to be gone", func() (bool, error) {
		s, err := scriptStatus(ts, args[0])
		return s.State == "", err
	})
}

func wait(ts *testscript.TestScript, what string, f func() (bool, error)) {
	deadline := time.Now().Add(60 * time.Second)
	for {
		done, err := f()
		ts.Check(err)
		if done {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("waited a minute for %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func scriptSame(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "same WANT GOT")
	if _, err := exec.LookPath("rsync"); err != nil && os.Getenv("CI") != "true" {
		ts.Logf("skipped: rsync is not installed: %v is not compared", args)
		return
	}
	diff, err := compare.Same(context.Background(), ts.MkAbs(args[0]), ts.MkAbs(args[1]))
	ts.Check(err)
	if len(diff) > 0 {
		ts.Fatalf("%s differs from %s:\n%s", args[1], args[0], strings.Join(diff, "\n"))
	}
}

func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "flip FILE")
	ts.Check(flip(ts.MkAbs(args[0])))
}

func scriptResolves(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "resolves LINK TARGET")
	got, err := filepath.EvalSymlinks(ts.MkAbs(args[0]))
	ts.Check(err)
	if got != ts.MkAbs(args[1]) {
		ts.Fatalf("%s resolves to %s, want %s", args[0], got, args[1])
	}
}

func scriptNoMounts(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 0, "nomounts")
	if left := scriptHost(ts).MountsBelow(ts.Getenv("WORK")); len(left) > 0 {
		ts.Fatalf("mounts are left: %v", left)
	}
}
