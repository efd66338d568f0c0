package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

func init() {
	register("one-to-one", "one host fetches from one other over loopback, plain and with TLS, beside libtorrent; -dir /dev/shm keeps the disk out", benchOneToOne)
}

//go:embed onetoone.py
var oneToOnePython string

const python3 = "/usr/bin/python3" // whose packages are the system's

// oneToOne is a payload, and what its transfers took.
type oneToOne struct {
	e     *env
	bytes float64
	cpu   map[string][]float64 // seconds of both sides, by rival
}

func benchOneToOne(e *env) error {
	o := &oneToOne{e: e, bytes: 512 << 20, cpu: make(map[string][]float64)}
	if e.full {
		o.bytes = 2 << 30
	}
	if err := os.Mkdir(e.path("one"), 0o755); err != nil {
		return err
	}
	if err := makeNoise(e.path("one", "payload"), int64(o.bytes), 3); err != nil {
		return err
	}
	tls, err := e.certificates()
	if err != nil {
		return err
	}
	var rivals []rival
	for _, r := range []struct {
		name  string
		flags []string
	}{{"dcfs", nil}, {"dcfs TLS", []string{"--peer-tls", tls}}} {
		run, stop, err := o.dcfs(r.name, r.flags)
		if err != nil {
			return err
		}
		defer stop()
		rivals = append(rivals, rival{r.name, run})
	}
	if exec.Command(python3, "-c", "import libtorrent").Run() == nil {
		run, stop, err := o.libtorrent()
		if err != nil {
			return err
		}
		defer stop()
		rivals = append(rivals, rival{"libtorrent", run})
	} else {
		e.out.note("libtorrent is not installed for %s: not measured", python3)
	}
	for _, r := range rivals { // once before: an origin hashes what it has when it is first asked for
		if _, err := r.run(); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	clear(o.cpu)
	medians, ratio, err := e.turns(rivals)
	if err != nil {
		return err
	}
	o.report(rivals, medians, ratio)
	return nil
}

func (o *oneToOne) report(rivals []rival, medians map[string]float64, ratio func(a, b string) float64) {
	var out []figure
	name := fmt.Sprintf("%.0f MiB", o.bytes/(1<<20))
	speed := func(what, beside, goal string) figure {
		f := figure{Case: name, What: what, Value: o.bytes / medians[what] / 1e6, Unit: "MB/s", Beside: beside, Goal: goal}
		if beside != "" {
			f.Ratio = ratio(beside, what) // of times, the other way round
		}
		return f
	}
	perCPU := func(what string) float64 { return o.bytes / median(o.cpu[what]) / 1e6 }
	for _, r := range rivals {
		out = append(out, speed(r.name, "", ""), figure{Case: name, What: r.name + ", both sides", Value: perCPU(r.name), Unit: "MB/CPU s"})
	}
	if _, ok := medians["libtorrent"]; ok {
		out = append(out, speed("dcfs", "libtorrent", ">= 1"))
	}
	out = append(out, figure{Case: name, What: "dcfs TLS, both sides", Value: perCPU("dcfs TLS"), Unit: "MB/CPU s",
		Ratio: perCPU("dcfs TLS") / perCPU("dcfs"), Beside: "dcfs", Goal: ">= 0.75"})
	o.e.out.figures(out)
}

// dcfs starts an origin; run fetches from it and returns how long that took,
// from the start of the process to its end, with the copy in its place.
func (o *oneToOne) dcfs(name string, flags []string) (run func() (float64, error), stop func(), err error) {
	e, state := o.e, o.e.path("state-"+name)
	if _, _, err := e.publish(e.path("one"), "one", state, "--out", e.path("one.torrent")); err != nil {
		return nil, nil, err
	}
	s, err := e.originIn(nil, "127.0.0.1", state, flags...)
	if err != nil {
		return nil, nil, err
	}
	return func() (float64, error) {
		host, before := e.path("host"), s.cpu()
		u, err := e.command(e.dcfs, append([]string{"fetch", "one", filepath.Join(host, "one"), "--origin", s.url, "--state", host, "--run", host,
			"--peer-listen", "127.0.0.1:0", "--linger", "0s", "--insecure-unsigned", "--quiet"}, flags...)...)
		if err == nil {
			o.cpu[name] = append(o.cpu[name], u.cpu+s.cpu()-before)
			err = os.RemoveAll(host)
		}
		return u.wall, err
	}, s.stop, nil
}

// libtorrent does the same with libtorrent on both sides.
func (o *oneToOne) libtorrent() (run func() (float64, error), stop func(), err error) {
	const seed, leech = "127.0.0.1:26881", "127.0.0.1:26882"
	e, script := o.e, o.e.path("onetoone.py")
	if err := os.WriteFile(script, []byte(oneToOnePython), 0o644); err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(e.ctx, python3, script, e.path("one.torrent"), e.dir, seed, e.path("seeds"))
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(e.path("seeds")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			stop()
			return nil, nil, fmt.Errorf("libtorrent does not seed")
		}
	}
	return func() (float64, error) {
		host, before := e.path("host"), cpuOf(cmd.Process.Pid)
		u, err := e.command(python3, script, e.path("one.torrent"), host, leech, e.path("fetched"), seed)
		if err == nil {
			o.cpu["libtorrent"] = append(o.cpu["libtorrent"], u.cpu+cpuOf(cmd.Process.Pid)-before)
			err = os.RemoveAll(host)
		}
		return u.wall, err
	}, stop, nil
}

// certificates makes a CA and a certificate of it for loopback, and returns the
// directory.
func (e *env) certificates() (string, error) {
	dir := e.path("tls")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	_, err := e.command("bash", "-euc", `cd "$1"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ca.key -out ca.pem -subj "/CN=bench"
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out csr.pem -subj "/CN=host"
openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out cert.pem -extfile <(printf "subjectAltName=IP:127.0.0.1")`, "bash", dir)
	return dir, err
}
