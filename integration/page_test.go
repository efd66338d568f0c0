package integration

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/browser"
	"dcfs/integration/lab"
)

var screenshots = flag.String("screenshots", "", "directory into which TestScreenshots puts pictures of a swarm; `make screenshots` does")

// named starts dcfs on a host that has a name of its own.
func (n *node) named(label string, args ...string) *lab.Process {
	n.t.Helper()
	words := append([]string{"--uts", "sh", "-c", `echo "$0" >/proc/sys/kernel/hostname && exec "$@"`, n.Name, n.bin}, args...)
	return n.Start(label, func(c *exec.Cmd) { c.Env = n.env() }, "unshare", words...)
}

// pageLab is a swarm as a person would look at: hosts that are whole, hosts on
// their way, one whose reader waits, one that is stuck, one that fails, and a
// client that is not dcfs.
type pageLab struct {
	*origin
	t     *testing.T
	nodes []*node
}

func newPageLab(t *testing.T, hosts int) *pageLab {
	t.Helper()
	lab.Require(t, lab.Root, lab.FUSE, lab.Tool(browser.Program))
	l := lab.New(t, "origin")
	p := &pageLab{t: t, origin: newOrigin(t, l.Host("origin"))}
	for i := range hosts {
		p.nodes = append(p.nodes, p.newNode(l.Add(fmt.Sprintf("web%02d", i+1))))
	}
	return p
}

// join lets a node fetch a release and stay.
func (p *pageLab) join(n *node, version string, more ...string) *lab.Process {
	return n.named("join-"+strings.ReplaceAll(version, "/", "-"), append([]string{"fetch", version, filepath.Join(n.Releases(), version), "--origin", p.url(),
		"--linger", "1h"}, more...)...)
}

// forge posts a report from a host, as a liar would.
func forge(t *testing.T, n *node, url string, report map[string]any) (int, string) {
	t.Helper()
	body, err := json.Marshal(report)
	must(t, err)
	resp, err := n.Client().Post(url+"/v1/hosts", "application/json", bytes.NewReader(body))
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text)
}

// TestPage looks at the pages of an origin and of a node with a real browser
// while a real swarm is behind them.
func TestPage(t *testing.T) {
	p := newPageLab(t, 4)
	release := p.publish(sampleTree(t, 30, 3, 4<<20), "app/1")
	whole, slow, mounted, liar := p.nodes[0], p.nodes[1], p.nodes[2], p.nodes[3]
	pw := p.join(whole, "app/1", "--http", whole.Addr+":7073", "--rack", "r1")
	whole.reach(pw, "app/1", "lingering", time.Minute)
	slow.Shape(lab.Shape{Down: "2mbit"})
	p.join(slow, "app/1")
	mounted.Shape(lab.Shape{Down: "2mbit"})
	mountpoint := filepath.Join(mounted.Mnt(), "m")
	must(t, os.MkdirAll(mountpoint, 0o755))
	pm := mounted.named("mount", "mount", "app/1", mountpoint, "--origin", p.url(), "--linger", "1h", "--at-end", "unmount")
	mounted.reach(pm, "app/1", "mounted", 30*time.Second)
	reader := mounted.Start("reader", nil, "sh", "-c", "cat "+mountpoint+"/big/02.bin >/dev/null")
	evil := `<img src=x onerror=alert(1)><script>alert(2)</script>`
	code, text := forge(t, liar, p.url(), map[string]any{"host": evil, "rack": "\u202e" + evil, "infohash": release.Infohash,
		"state": "failed", "reason": evil, "waiting": []map[string]any{{"path": evil, "age_ms": -5}}, "cells": []byte("x"), "bytes_have": -1})
	if code != http.StatusOK {
		t.Fatalf("the liar's report: %d %s", code, text)
	}

	b := browser.Start(t, p.Command)
	b.Show(browser.Screen{Width: 1500, Height: 900, Scale: 1})
	b.Open(p.url() + "/")
	b.Until(`document.querySelector('#live').className === 'on' && document.querySelectorAll('tr.row').length === 4`)
	for _, want := range []string{
		`document.title.includes('origin')`,
		`document.querySelector('h2').textContent === 'app/1'`,
		`[...document.querySelectorAll('tr.row')].some(r => r.innerText.includes('web01') && r.innerText.includes('lingering') && r.innerText.includes('100 %') && r.innerText.includes('r1'))`,
		`[...document.querySelectorAll('tr.row')].some(r => r.innerText.includes('web02') && /announced|mounted/.test(r.innerText) && r.innerText.includes('/s'))`,
		// A read waits, and one can see for how long.
		`[...document.querySelectorAll('tr.row')].some(r => r.innerText.includes('web03') && /· [0-9.]+ s/.test(r.querySelector('.wait').innerText))`,
		// What the liar sent is text.
		`[...document.querySelectorAll('tr.row')].some(r => r.innerText.includes('<img src=x onerror'))`,
		`document.querySelectorAll('#table img, #table script, #events img').length === 0`,
		`document.querySelector('#events').innerText.includes('failed') && document.querySelector('#events').innerText.includes('came')`,
		// The map has as many parts as there are pieces, and somebody has each.
		fmt.Sprintf(`view.cells.list.length === Math.min(%d, 1024) && view.cells.rarest >= 1`, release.Pieces),
		`document.querySelector('#map').width > 100`,
	} {
		b.Until(want)
	}
	// A row opens, and the list can be searched.
	b.Eval(`[...document.querySelectorAll('tr.row')].find(r => r.innerText.includes('web01')).click()`, nil)
	b.Until(`document.querySelector('tr.more').innerText.includes('came from')`)
	b.Eval(`(() => { const w = document.querySelector('#word'); w.value = 'web02'; w.dispatchEvent(new Event('input')); })()`, nil)
	b.Until(`document.querySelectorAll('tr.row').length === 1`)
	b.Eval(`(() => { const w = document.querySelector('#word'); w.value = ''; w.dispatchEvent(new Event('input')); })()`, nil)
	b.Until(`document.querySelectorAll('tr.row').length === 4`)

	p.nodePage(b, whole)
	light := background(b)
	b.Show(browser.Screen{Width: 390, Height: 844, Scale: 2, Mobile: true, Dark: true})
	b.Until(`document.documentElement.scrollWidth <= 390 && getComputedStyle(document.querySelector('#word')).fontSize`)
	b.Until(fmt.Sprintf(`getComputedStyle(document.body).backgroundColor !== %q`, light))
	b.Until(`[...document.querySelectorAll('tr.row')].every(r => r.getBoundingClientRect().right <= 390)`)

	// What happens next comes by itself.
	slow.Shape(lab.Shape{})
	mounted.Shape(lab.Shape{})
	b.Until(`[...document.querySelectorAll('tr.row')].filter(r => r.innerText.includes('100 %')).length === 3`)
	b.Until(`document.querySelector('#events').innerText.includes('materialised')`)
	if complaints := b.Complaints(); len(complaints) > 0 {
		t.Errorf("the page complains: %s", complaints)
	}

	p.withoutScript(release)
	stop(t, pw)
	p.stopAll(reader)
}

// withoutScript looks at what the origin's page says to those who run no script,
// and at its headers.
func (p *pageLab) withoutScript(release published) {
	resp, err := p.Client().Get(p.url() + "/")
	must(p.t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	must(p.t, err)
	text := string(raw)
	for _, want := range []string{"app/1", release.Infohash, "web01", "lingering", "&lt;img src=x"} {
		if !strings.Contains(text, want) {
			p.t.Errorf("the page without a script does not say %q:\n%s", want, text)
		}
	}
	policy := resp.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || strings.Contains(text, "<img src=x") {
		p.t.Errorf("policy %q, page\n%s", policy, text)
	}
	if strings.Contains(text, "http://") && strings.Contains(strings.ReplaceAll(text, "http://www.w3.org/2000/svg", ""), "http://") {
		p.t.Errorf("the page names another server:\n%s", text)
	}
}

func (p *pageLab) stopAll(procs ...*lab.Process) {
	for _, proc := range procs {
		proc.Kill()
	}
}

// nodePage looks at a node's own page: itself and its peers.
func (p *pageLab) nodePage(b *browser.Browser, n *node) {
	p.t.Helper()
	b.Open("http://" + n.Addr + ":7073/")
	b.Until(`document.querySelector('#live').className === 'on' && document.querySelectorAll('tr.row').length >= 3`)
	b.Until(`document.querySelector('tr.row').innerText.includes('(this node)') && document.title.includes('node')`)
	b.Until(`view.cells.mine.every(n => n === 255)`)
	b.Open(p.url() + "/")
	b.Until(`document.querySelectorAll('tr.row').length === 4`)
}

func background(b *browser.Browser) (colour string) {
	b.Eval(`getComputedStyle(document.body).backgroundColor`, &colour)
	return colour
}
