package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	register("coldread", "reading a mount that has nothing yet, beside btfs", benchCold)
}

// coldLimit is how long a case may take.
const coldLimit = time.Minute

func benchCold(e *env) error {
	if os.Geteuid() != 0 {
		e.out.note("not root: nothing is mounted")
		return nil
	}
	byClock := *e // waiting takes no processor
	byClock.byCPU = false
	e = &byClock
	sizes := e.readSizes()
	if err := e.makeRead(sizes); err != nil {
		return err
	}
	o, err := e.serve("read")
	if err != nil {
		return err
	}
	defer o.stop()
	out, err := e.cold(o, sizes)
	if err != nil {
		return err
	}
	e.out.figures(out)
	return nil
}

// coldPages is how many pages a cold case reads at random.
const coldPages = 100

// coldCases are what is read first of a mount that has nothing yet.
func (e *env) coldCases(s readSizes) []work {
	few := s
	few.pages = coldPages
	return []work{
		{"sequential", "", e.sequential(1)},
		{fmt.Sprintf("%d random reads of 4 KiB", coldPages), "", e.pages(few, true)},
		{"2000 small files", "", e.smallFiles("small", 2000)},
	}
}

// cold does each case to a fresh mount of dcfs and of btfs, from one origin on
// this machine.
func (e *env) cold(o *service, s readSizes) (out []figure, err error) {
	btfs, err := exec.LookPath("btfs")
	if err != nil {
		e.out.note("no btfs (apt-get install btfs): the cold cases are dcfs alone")
	}
	for _, w := range e.coldCases(s) {
		rivals := []rival{{"dcfs", func() (float64, error) { return e.coldDcfs(o, w) }}}
		if btfs != "" {
			rivals = append(rivals, rival{"btfs", func() (float64, error) { return e.coldBtfs(o, btfs, w) }})
		}
		medians, ratio, err := e.turns(rivals)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.what, err)
		}
		e.out.note("%s: dcfs %s s, btfs %s s", w.what, short(medians["dcfs"]), short(medians["btfs"]))
		f := figure{Case: "cold", What: w.what, Value: medians["dcfs"], Unit: "s"}
		if btfs != "" {
			f.Ratio, f.Beside = ratio("dcfs", "btfs"), "btfs"
			out = append(out, f, figure{Case: "cold, btfs", What: w.what, Value: medians["btfs"], Unit: "s"})
			continue
		}
		out = append(out, f)
	}
	return out, nil
}

// coldDcfs mounts with nothing on the host; the time counts from the listing.
func (e *env) coldDcfs(o *service, w work) (float64, error) {
	d, at, _, err := e.mount("read", "--origin", o.url, "--linger", "1h")
	if err != nil {
		return 0, err
	}
	defer d.stop()
	return w.run(at)
}

// coldBtfs does the same with btfs, which is given the origin's torrent.
func (e *env) coldBtfs(o *service, btfs string, w work) (seconds float64, err error) {
	at, data := e.path("btfs-mount"), e.path("btfs-data")
	for _, dir := range []string{at, data} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
	}
	defer os.RemoveAll(data)
	if _, err := e.command("curl", "-sSf", "-o", e.path("read.torrent"), o.url+"/v1/releases/read.torrent"); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(e.ctx, btfs, "-f", "--data-directory="+data, e.path("read.torrent"), at)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // ends with the process
	defer func() {
		_ = unix.Unmount(at, unix.MNT_DETACH)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	}()
	root := ""
	for limit := time.Now().Add(time.Minute); root == ""; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			return 0, fmt.Errorf("btfs shows nothing after a minute")
		}
		if found, _ := filepath.Glob(filepath.Join(at, "*", "big")); len(found) > 0 {
			root = filepath.Dir(found[0])
		} else if _, err := os.Stat(filepath.Join(at, "big")); err == nil {
			root = at
		}
	}
	// A read that hangs ends with the program that serves it.
	late := time.AfterFunc(coldLimit, func() { _ = cmd.Process.Kill() })
	seconds, err = w.run(root)
	if !late.Stop() {
		e.out.note("btfs, %s: not done after %s", w.what, coldLimit)
		return coldLimit.Seconds(), nil
	}
	return seconds, err
}
