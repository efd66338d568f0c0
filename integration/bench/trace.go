package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"dcfs/fs/prefetch"
	"dcfs/integration/lab"
)

func init() {
	register("trace", "the first start of a program from a mount that has nothing yet, 200 Mbit/s: with a trace, without, after a full fetch, native", benchTrace)
}

// traceRate is the rate of the link in bytes per second, 200 Mbit/s.
const traceRate = 200e6 / 8

// traceGoal is how much longer than its working set takes on the link a start
// with a trace may take.
const traceGoal = 1.3

// app is a program with its whole runtime in the release.
type app struct {
	name  string
	start func(root string) *exec.Cmd
}

// apps are the programs that this machine has; files are what of it they need,
// put below the same paths in the release.
func (e *env) apps() (apps []app, files []string) {
	if lib, _ := filepath.Glob("/usr/lib/python3.*/asyncio"); len(lib) > 0 {
		lib := filepath.Dir(lib[0])
		binary := "/usr/bin/" + filepath.Base(lib)
		files = append(files, binary, lib)
		apps = append(apps, app{"python, 40 modules", func(root string) *exec.Cmd {
			c := exec.Command(root+binary, "-S", "-c", pythonStart)
			c.Env = []string{"PYTHONHOME=" + root + "/usr", "PYTHONDONTWRITEBYTECODE=1"}
			return c
		}})
	}
	if root, err := goroot(); err == nil {
		files = append(files, root)
		apps = append(apps, app{"go list -deps net/http", func(top string) *exec.Cmd {
			c := exec.Command(top+root+"/bin/go", "list", "-deps", "net/http")
			c.Dir = e.dir
			c.Env = []string{"GOROOT=" + top + root, "GOTOOLCHAIN=local", "GOPROXY=off", "HOME=" + e.path("home"), "GOFLAGS=-mod=mod", "CGO_ENABLED=0"}
			return c
		}})
	}
	if node, err := exec.LookPath("node"); err == nil {
		files = append(files, node)
		apps = append(apps, app{"node, one binary", func(root string) *exec.Cmd {
			return exec.Command(root+node, "-e", `require("http").createServer(() => {}).listen(0, "127.0.0.1", function () { this.close() })`)
		}})
	}
	return apps, files
}

const pythonStart = `
import argparse, array, asyncio, bz2, calendar, codecs, collections, concurrent.futures, configparser, contextlib, csv, ctypes
import dataclasses, datetime, decimal, difflib, email.message, fractions, gzip, hashlib, heapq, html, http.server, inspect, json
import logging.handlers, mimetypes, multiprocessing, pathlib, pickle, random, shelve, sqlite3, ssl, statistics, subprocess
import tarfile, tempfile, threading, unittest, urllib.request, uuid, xml.etree.ElementTree, zipfile`

func benchTrace(e *env) error {
	for _, tool := range []string{"ip", "tc", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil || os.Geteuid() != 0 {
			e.out.note("not root, or no %s: there is no link to shape", tool)
			return nil
		}
	}
	apps, files := e.apps()
	if len(apps) == 0 {
		e.out.note("neither python, go nor node is here: nothing to start")
		return nil
	}
	for _, f := range files {
		if err := os.MkdirAll(e.path("tree", filepath.Dir(f)), 0o755); err != nil {
			return err
		}
		if _, err := e.command("cp", "-aTH", f, e.path("tree", f)); err != nil {
			return err
		}
	}
	t := &tracing{env: e, state: e.path("state")}
	plain, _, err := e.publish(e.path("tree"), "plain", t.state)
	if err != nil {
		return err
	}
	e.out.note("the release: %d files, %d MiB; %.1f s on the link", plain.Files, plain.Bytes>>20, float64(plain.Bytes)/traceRate)
	for i, a := range apps {
		if err := t.record(i, a); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
	}
	syscall.Sync() // what was published is still on its way to the disk
	return e.inLab(func(l *lab.Lab) error {
		t.far, t.near = l.Host("origin"), l.Host("host")
		for _, h := range []*lab.Host{t.far, t.near} {
			h.Shape(lab.Shape{Up: "200mbit"})
		}
		return t.measure(apps)
	}, "origin", "host")
}

// tracing is the bench at work.
type tracing struct {
	*env
	far   *lab.Host // of the origin
	near  *lab.Host
	state string
	sets  []int64   // bytes of each app's working set: what the kernel asked the mount for
	trees []float64 // seconds from dcfs's start to the tree, of each cold start
}

// record starts an app from a mount on loopback, and publishes the release
// again by the trace of that.
func (t *tracing) record(i int, a app) error {
	o, err := t.origin(t.state)
	if err != nil {
		return err
	}
	defer o.stop()
	if err := t.served(o, "plain"); err != nil {
		return err
	}
	file := t.path(fmt.Sprintf("%d.trace", i))
	d, at, _, err := t.mount("plain", "--origin", o.url, "--linger", "1h", "--trace-out", file)
	if err != nil {
		return err
	}
	_, err = launch(a, at)
	d.stop()
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	trace, err := prefetch.Parse(raw)
	if err != nil {
		return err
	}
	var set int64
	for _, x := range trace.Entries {
		set += x.Len
	}
	t.sets = append(t.sets, set)
	_, _, err = t.publish(t.path("tree"), fmt.Sprint("traced-", i), t.state, "--trace", file)
	return err
}

// launch runs the app to its end and returns the seconds.
func launch(a app, root string) (float64, error) {
	cmd := a.start(root)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = nil, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, lastLine(out.Bytes()))
	}
	return time.Since(start).Seconds(), nil
}

func (t *tracing) measure(apps []app) error {
	o, err := t.originIn(t.far.Enter(), t.far.Addr, t.state)
	if err != nil {
		return err
	}
	defer o.stop()
	if err := t.seeding(o, "plain"); err != nil {
		return err
	}
	var out []figure
	for i, a := range apps {
		if err := t.seeding(o, fmt.Sprint("traced-", i)); err != nil {
			return err
		}
		medians, _, err := t.turns([]rival{
			{"native", func() (float64, error) { return launch(a, t.path("tree")) }},
			{"with a trace", func() (float64, error) { return t.cold(o, fmt.Sprint("traced-", i), a) }},
			{"without", func() (float64, error) { return t.cold(o, "plain", a) }},
		})
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		whole, err := t.fetched(o, a)
		if err != nil {
			return err
		}
		onLink := float64(t.sets[i]) / traceRate
		out = append(out,
			figure{Case: a.name, What: "working set", Value: float64(t.sets[i]) / (1 << 20), Unit: "MiB"},
			figure{Case: a.name, What: "with a trace", Value: medians["with a trace"], Unit: "s",
				Ratio: medians["with a trace"] / onLink, Beside: "the link", Goal: fmt.Sprint(traceGoal)},
			figure{Case: a.name, What: "without", Value: medians["without"], Unit: "s", Ratio: medians["without"] / onLink, Beside: "the link"},
			figure{Case: a.name, What: "full fetch first", Value: whole, Unit: "s", Ratio: whole / onLink, Beside: "the link"},
			figure{Case: a.name, What: "native", Value: medians["native"], Unit: "s"})
	}
	out = append(out, figure{Case: "all", What: "of each start from a mount, until the tree is there", Value: median(t.trees), Unit: "s"})
	t.out.figures(out)
	return nil
}

// seeding waits until the origin, behind the link, serves a release.
func (t *tracing) seeding(o *service, version string) error {
	return o.until(t.ctx, time.Minute, func() bool {
		log, _ := os.ReadFile(o.log)
		return bytes.Contains(log, []byte("version="+version+" "))
	})
}

// cold mounts the release behind the link, with nothing on the host, and starts
// the app as soon as the tree is there: the seconds from dcfs's start to the
// app's end.
func (t *tracing) cold(o *service, version string, a app) (float64, error) {
	d, at, tree, err := t.mountIn(t.near.Enter(), t.near.Addr, version, "--origin", o.url, "--linger", "1h")
	if err != nil {
		return 0, err
	}
	defer d.stop()
	t.trees = append(t.trees, tree)
	seconds, err := launch(a, at)
	return tree + seconds, err
}

// fetched fetches the whole release first, and starts the app from the copy.
func (t *tracing) fetched(o *service, a app) (float64, error) {
	dest, err := t.fresh("fetched")
	if err != nil {
		return 0, err
	}
	host, err := t.fresh("host-fetch")
	if err != nil {
		return 0, err
	}
	start := time.Now()
	d, err := t.startIn(t.near.Enter(), "fetch", "fetch", "plain", dest, "--origin", o.url, "--state", host, "--run", t.path("run-fetch"),
		"--insecure-unsigned", "--peer-listen", t.near.Addr+":0", "--linger", "0s")
	if err != nil {
		return 0, err
	}
	select {
	case <-d.done:
	case <-t.ctx.Done():
		d.stop()
		return 0, t.ctx.Err()
	}
	if _, err := launch(a, dest); err != nil {
		return 0, fmt.Errorf("%w (%s)", err, d.lastWords())
	}
	return time.Since(start).Seconds(), nil
}
