package faults

import (
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
)

// What a child is told: where to work, and at which call to end.
const (
	envDir = "DCFS_FAULTS_DIR"
	envAt  = "DCFS_FAULTS_AT"
)

// Kill runs the job in a process of its own that gets SIGKILL before its first
// call that changes the disk, in another before its second, and so on, and the
// last after all: between two such calls nothing is there to be seen. It must
// be the whole test that calls it, because the process is this test again.
func Kill(t *testing.T, job Job) {
	if dir := os.Getenv(envDir); dir != "" {
		child(t, job, dir)
		return
	}
	at := 1
	for job.killed(t, at) {
		at++
	}
	if at < 2 {
		t.Error("no process was killed: the sweep is not one")
	}
	t.Logf("%d processes killed", at-1)
}

// killed kills a process at call number at, and returns false when it ended
// before that.
func (j Job) killed(t *testing.T, at int) bool {
	t.Helper()
	dir := ramDir(t)
	j.Prepare(t, dir)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.timeout=1m")
	cmd.WaitDelay = time.Minute
	// Who is killed leaves its temporary files: below a directory of ours.
	cmd.Env = append(os.Environ(), envDir+"="+dir, envAt+"="+strconv.Itoa(at), "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	dead := status.Signaled() && status.Signal() == syscall.SIGKILL
	if !dead && err != nil {
		t.Fatalf("the process at call %d: %v\n%s", at, err, out)
	}
	j.Holds(t, dir)
	if !dead {
		j.Done(t, dir)
	}
	if err := j.Run(dir, durable.Disk{}); err != nil {
		t.Errorf("the next start does not finish the job: %v", err)
	}
	j.Holds(t, dir)
	j.Done(t, dir)
	if t.Failed() {
		t.Fatalf("that was after a kill before call %d", at)
	}
	return dead
}

// child does the job and dies in it.
func child(t *testing.T, job Job, dir string) {
	at, err := strconv.Atoi(os.Getenv(envAt))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	calls := 0
	err = job.Run(dir, durable.Disk{Before: func(string, string) error {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls == at {
			_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
			select {} // with the lock: nobody makes another call
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
}
