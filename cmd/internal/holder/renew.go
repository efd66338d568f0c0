package holder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// What a parent leaves to the program that it becomes: its process id,
	// which stays the same, and the descriptors, with commas.
	renewedEnv = "_DCFS_RENEWED"
	keptEnv    = "_DCFS_KEPT"

	// trial bounds the run that shows that the program on the disk can start.
	trial = 10 * time.Second
)

// renewable says why this process cannot become the program on the disk.
func (k *keeper) renewable() error {
	if !k.holds() {
		return errors.New("there is no mount yet to go on with")
	}
	ctx, cancel := context.WithTimeout(context.Background(), trial)
	defer cancel()
	if out, err := exec.CommandContext(ctx, k.exe, "--version").CombinedOutput(); err != nil {
		return fmt.Errorf("%s --version: %w: %.200s", k.exe, err, out)
	}
	return nil
}

// become runs the program on the disk in the place of this one, which keeps its
// process id and everything else that exec leaves.
func (k *keeper) become() error {
	var again unix.Sigset_t // SIGUSR2 waits until the other listens for it
	again.Val[0] = 1 << (unix.SIGUSR2 - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &again, nil); err != nil {
		return fmt.Errorf("become %s: %w", k.exe, err)
	}
	k.Log.Info("going on as the program on the disk", "program", k.exe)
	var fds []string
	for _, f := range k.kept.Files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, keptFD) // without CLOEXEC
		if err != nil {
			return fmt.Errorf("become %s: %w", k.exe, err)
		}
		fds = append(fds, strconv.Itoa(fd))
	}
	env := append(os.Environ(), renewedEnv+"="+strconv.Itoa(os.Getpid()),
		keptEnv+"="+strings.Join(fds, ","), depositEnv+"="+string(k.kept.Text))
	return fmt.Errorf("become %s: %w", k.exe, unix.Exec(k.exe, k.Argv, env))
}

// Renewed returns what this process held before it became this program, and nil
// when it was no other.
func Renewed() *Deposit {
	before, kept, text := os.Getenv(renewedEnv), os.Getenv(keptEnv), os.Getenv(depositEnv)
	if before != strconv.Itoa(os.Getpid()) {
		return nil
	}
	for _, name := range []string{renewedEnv, keptEnv, depositEnv} {
		os.Unsetenv(name)
	}
	d := &Deposit{Text: []byte(text)}
	for fd := range strings.SplitSeq(kept, ",") {
		n, err := strconv.Atoi(fd)
		if err != nil {
			return nil
		}
		unix.CloseOnExec(n)
		d.Files = append(d.Files, os.NewFile(uintptr(n), "deposit"))
	}
	return d
}
