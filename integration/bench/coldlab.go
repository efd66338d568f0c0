package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/integration/lab"
)

// coldLab is an origin and a host with links of one rate, and a release.
type coldLab struct {
	e            *env
	origin, host *lab.Host
	btfs         string // empty when it is not installed
	name         string // in front of each case's
	rate         float64
	piece        int64
	best         time.Duration // a round trip and one piece at the link's rate
	idle         []time.Duration
	runs         int
}

func (e *env) newCold(l *lab.Lab, mbit int, piece int64) (*coldLab, error) {
	c := &coldLab{e: e, origin: l.Host("origin"), host: l.Host("host"), name: fmt.Sprintf("%d Mbit/s, ", mbit),
		rate: float64(mbit) * 1e6 / 8, piece: piece}
	var err error
	if c.btfs, err = exec.LookPath("btfs"); err != nil {
		e.out.note("no btfs (apt-get install btfs): dcfs is measured alone")
	}
	if e.alone {
		c.btfs = ""
	}
	o := c.origin.Start("origin", nil, e.dcfs, append([]string{"origin", "--listen", ":7070", "--peer-listen", ":7071",
		"--state", e.path("state-cold"), "--run", c.origin.Run()}, e.flags...)...)
	ctx, cancel := context.WithTimeout(e.ctx, time.Minute)
	defer cancel()
	if err := o.WaitLog(ctx, "origin ready:"); err != nil {
		return nil, err
	}
	rate := fmt.Sprintf("%dmbit", mbit)
	c.origin.Shape(lab.Shape{Up: rate, Down: rate})
	c.host.Shape(lab.Shape{Up: rate, Down: rate})
	trip, err := c.roundTrip()
	c.best = trip + time.Duration(float64(piece)/c.rate*float64(time.Second))
	e.out.note("%sa round trip takes %s, with a piece of %d KiB %s", c.name, trip, piece>>10, c.best.Round(10*time.Microsecond))
	return c, err
}

// roundTrip is how long a connection takes to be made.
func (c *coldLab) roundTrip() (time.Duration, error) {
	var all []float64
	for range 9 {
		start := time.Now()
		conn, err := c.host.Dial(c.e.ctx, "tcp", net.JoinHostPort(c.origin.Addr, "7071"))
		if err != nil {
			return 0, err
		}
		all = append(all, float64(time.Since(start)))
		conn.Close()
	}
	return time.Duration(median(all)), nil
}

// url is where the origin is asked.
func (c *coldLab) url() string { return "http://" + net.JoinHostPort(c.origin.Addr, "7070") }

// run is a name that no other run has.
func (c *coldLab) run(who string) string {
	c.runs++
	return fmt.Sprintf("%s-%d", who, c.runs)
}

// dcfs does a work to a fresh mount of a host that has nothing.
func (c *coldLab) dcfs(w func(root string) (float64, error), more ...string) (seconds float64, err error) {
	run := c.run("dcfs")
	at, state := filepath.Join(c.host.Mnt(), run), filepath.Join(c.host.Dir, run)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return 0, err
	}
	defer os.RemoveAll(state)
	args := append([]string{"mount", "cold", at, "--origin", c.url(), "--state", state, "--run", c.host.Run(),
		"--insecure-unsigned", "--at-end", "unmount", "--linger", "1h"}, more...)
	p := c.host.Start(run, nil, c.e.dcfs, append(args, c.e.flags...)...)
	defer c.end(p)
	ctx, cancel := context.WithTimeout(c.e.ctx, time.Minute)
	defer cancel()
	if err := c.connected(ctx, p, at); err != nil {
		return 0, err
	}
	late := time.AfterFunc(coldLimit, func() { _ = p.Signal(unix.SIGTERM) })
	defer late.Stop()
	return w(at)
}

// connected waits until the mount is there and a byte of the origin's came:
// what is measured is reading, not joining.
func (c *coldLab) connected(ctx context.Context, p *lab.Process, at string) error {
	if err := p.WaitLog(ctx, "state=mounted"); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(at, "big"))
	if err != nil {
		return err
	}
	defer f.Close()
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
	_, err = f.ReadAt(make([]byte, 1), coldBig-1)
	return err
}

// end stops a program, and says when that went wrong.
func (c *coldLab) end(p *lab.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := p.Stop(ctx); err != nil {
		c.e.out.note("%s: %v", p.Label, err)
	}
}

// saturated waits until the prefetch has filled the link for a while.
func (c *coldLab) saturated() error {
	ctx, cancel := context.WithTimeout(c.e.ctx, coldLimit)
	defer cancel()
	enough := c.host.Traffic().Received + uint64(c.rate/2)
	return lab.Poll(ctx, func() (bool, error) { return c.host.Traffic().Received > enough, nil })
}

// stranger does a work to a fresh mount of btfs, which is given the origin's
// torrent. It is stopped at coldLimit, which is then the result.
func (c *coldLab) stranger(what string, w func(root string) (float64, error)) (float64, error) {
	run := c.run("btfs")
	at, data, torrent := filepath.Join(c.host.Mnt(), run), filepath.Join(c.host.Dir, run), filepath.Join(c.host.Dir, "cold.torrent")
	for _, dir := range []string{at, data} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
	}
	defer os.RemoveAll(data)
	if out, err := c.host.Command(c.e.ctx, "curl", "-sSf", "-o", torrent, c.url()+"/v1/releases/cold.torrent").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("curl: %w: %s", err, lastLine(out))
	}
	p := c.host.Start(run, nil, c.btfs, "-f", "--data-directory="+data, torrent, at)
	defer func() {
		p.Kill() // it ends at no signal while somebody waits for it
		_ = c.host.Unmount(at)
	}()
	ctx, cancel := context.WithTimeout(c.e.ctx, time.Minute)
	defer cancel()
	root := ""
	err := lab.Poll(ctx, func() (bool, error) {
		for _, pattern := range []string{filepath.Join(at, "big"), filepath.Join(at, "*", "big")} {
			if found, _ := filepath.Glob(pattern); len(found) > 0 {
				root = filepath.Dir(found[0])
			}
		}
		return root != "", nil
	})
	if err != nil {
		return 0, fmt.Errorf("btfs shows nothing: %w", err)
	}
	// A read that hangs ends with the program that serves it.
	late := time.AfterFunc(coldLimit, p.Kill)
	seconds, err := w(root)
	if !late.Stop() {
		c.e.out.note("%sbtfs, %s: not done after %s", c.name, what, coldLimit)
		return coldLimit.Seconds(), nil
	}
	return seconds, err
}
